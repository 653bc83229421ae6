"""Rules of the house that a program can check: sizes, rooms, dependencies, explicit names."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[3]
PACKAGE = REPO / "langchain_uno"
MAX_LINES = 400

# A module may import from its own room and from rooms before it, never from one behind.
ROOMS = [
    ["errors"], ["records", "messages", "home", "recipe", "settings", "testing", "console"],
    ["models"], ["world"], ["logs"], ["learning"], ["trainers"], ["releases"], ["serving"],
    ["graphs"],
]  # fmt: skip
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}
TOP = len(ROOMS)  # chat_models, callbacks, train, ...


def modules() -> list[Path]:
    """All modules of the package, through the two links too (rglob does not follow links)."""
    linked = [p for link in ("graphs", "trainers") for p in (PACKAGE / link).glob("**/*.py")]
    return sorted({*PACKAGE.rglob("*.py"), *linked})


def all_python() -> list[Path]:
    folders = [REPO / "tests", REPO / "examples"]
    return modules() + sorted(p for f in folders for p in f.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """All imports that can run, those inside functions too; not those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for body in node.body
        for child in ast.walk(body)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "langchain_uno":
                yield from ((f"langchain_uno.{alias.name}", node) for alias in node.names)
            else:
                yield node.module, node


def show(path: Path) -> str:
    return str(path.relative_to(REPO))


def test_the_walk_reaches_every_room() -> None:
    rooms = {p.relative_to(PACKAGE).parts[0] for p in modules()}
    assert {"graphs", "trainers", "logs", "models", "learning", "serving", "releases"} <= rooms


def test_no_file_is_longer_than_400_lines() -> None:
    long = {
        show(p): n
        for p in all_python()
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def test_rooms_import_only_rooms_above_them() -> None:
    wrong = []
    for path in modules():
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__" or path.name == "__main__.py":  # commands are the top of the house
            continue
        for name, _ in imports(path):
            parts = name.split(".")
            if parts[0] != "langchain_uno" or len(parts) == 1 or parts[1] == own:
                continue
            if RANK.get(parts[1], TOP) > RANK.get(own, TOP):
                wrong.append(f"{show(path)} imports {name}")
    assert wrong == []


def test_graphs_and_trainers_are_imported_by_their_full_names() -> None:
    bare = [
        f"{show(path)}: {name}"
        for path in all_python()
        for name, _ in imports(path)
        if name.split(".")[0] in ("graphs", "trainers")
    ]
    assert bare == []


@pytest.mark.parametrize("path", modules(), ids=show)
def test_all_is_explicit_sorted_and_true(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    found = [
        node.value
        for node in tree.body
        if (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
        or (isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "__all__")
    ]
    only_words = len(tree.body) <= 1 and ast.get_docstring(tree) is not None
    if not tree.body or only_words or path.name == "__main__.py":
        return
    assert found, f"{show(path)} has no __all__"
    names = ast.literal_eval(found[0])  # type: ignore[arg-type]
    assert len(names) == len(set(names))
    assert [n for n in names if not re.search(rf"\b{n}\b", source.replace(f'"{n}"', ""))] == []


def test_every_third_party_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
    wanted = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    declared = {norm(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0]) for line in wanted}
    homes = packages_distributions()
    missing = set()
    for path in modules():
        for name, _ in imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "langchain_uno":
                continue
            if not declared & {norm(d) for d in homes.get(top, [top])}:
                missing.add(f"{top} ({show(path)})")
    assert missing == set()


def norm(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_packages_of_pyproject_are_those_on_disk() -> None:
    listed = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {
        ".".join(p.parent.relative_to(REPO).parts) for p in modules() if p.name == "__init__.py"
    }
    assert set(listed) == on_disk


def test_no_pickle_and_no_eval() -> None:
    bad = [
        f"{show(path)}: {name}"
        for path in modules()
        for name, _ in imports(path)
        if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
    ]
    assert bad == []


@pytest.mark.parametrize("link", ["graphs", "trainers"])
def test_links_are_relative(link: str) -> None:
    assert (PACKAGE / link).is_symlink()
    assert str((PACKAGE / link).readlink()) == f"../{link}"
