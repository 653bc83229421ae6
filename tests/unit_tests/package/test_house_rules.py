"""Rules of the house that a program can check: sizes, rooms, dependencies, explicit names."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from functools import cache
from importlib.metadata import distributions, files, packages_distributions, requires
from pathlib import Path

import pytest

from langchain_uno.records import STAGES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[3]
PACKAGE = REPO / "langchain_uno"
MAX_LINES = 600
MAX_PRODUCT = 26_550
"""Lines of code, without blank ones, comments and docstrings."""


def import_table() -> list[list[str]]:
    """The rooms of docs/architecture.md, a row's names together, the lowest first."""
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("\n## Rooms\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    table = [[name.rstrip("/") for name in re.findall(r"`([a-z_/]+)`", row)] for row in rows]
    assert ["reflect"] in table, "docs/architecture.md has no import table"
    return table


ROOMS = import_table()
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}
FRONT = {"UNOChatModel": "chat_models", "UNOFeedbackHandler": "callbacks",
         "UNOMiddleware": "middleware", "__version__": "errors"}  # fmt: skip
"""Where the names of ``langchain_uno`` itself lie; they are imported when asked for."""


@cache
def modules() -> list[Path]:
    """All modules of the package, through the two links too (rglob does not follow links)."""
    linked = [p for link in ("graphs", "trainers") for p in (PACKAGE / link).glob("**/*.py")]
    return sorted({*PACKAGE.rglob("*.py"), *linked})


def outside(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (REPO / folder).rglob("*.py"))


def all_python() -> list[Path]:
    return modules() + outside("tests", "examples", "lab", "docs")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[tuple[str, ast.stmt]]:
    """All imports that can run, those inside functions too.

    Not those for type checkers alone, and not what a module does as a command.
    """
    tree, found = parsed(path), list[tuple[str, ast.stmt]]()
    elsewhere = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
        for body in node.body
        for child in ast.walk(body)
    }
    for node in ast.walk(tree):
        if id(node) in elsewhere:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module == "langchain_uno":
                found += [(f"langchain_uno.{alias.name}", node) for alias in node.names]
            else:
                found.append((node.module, node))
    return found


def show(path: Path) -> str:
    return str(path.relative_to(REPO))


def test_every_room_stands_in_the_import_table() -> None:
    rooms = {room(path) for path in modules()} - {"__init__", "__main__"}
    assert rooms == set(RANK)


def test_no_module_is_longer_than_600_lines() -> None:
    long = {
        show(p): n
        for p in all_python()
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def lines_of_code(path: Path) -> int:
    """Lines with code on them: not those that are blank, comments or docstrings alone."""
    source = path.read_text(encoding="utf-8")
    words: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            words |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    none = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    rows: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in none and token.type != tokenize.ENDMARKER:
            rows |= set(range(token.start[0], token.end[0] + 1))
    return len(rows - words)


def test_the_product_stays_small() -> None:
    assert 0 < sum(lines_of_code(path) for path in modules()) <= MAX_PRODUCT


def test_lines_of_code_are_counted(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text('"""Words.\n\nMore."""\n\n# a comment\nx = [\n    1,  # one\n]\n')
    assert lines_of_code(sample) == 3


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_a_file_with_its_node(stage: str) -> None:
    tree = parsed(PACKAGE / "learning" / f"{stage}.py")
    assert f"{stage}_stage" in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}


def test_trainers_are_a_file_each_and_graphs_are_two() -> None:
    names = {p.name for p in (REPO / "trainers").glob("*.py")}
    stages = {"expert.py", "critic.py", "verifier.py"}
    assert names == stages | {"__init__.py", "common.py", "deciding.py", "elsewhere.py"}
    assert {p.name for p in (REPO / "graphs").iterdir()} - {"__pycache__"} == {
        "__init__.py",
        "refresh.py",
        "respond.py",
    }


def test_rooms_import_only_rooms_above_them() -> None:
    wrong = []
    for path in modules():
        own = room(path)
        if own == "__init__" or path.name == "__main__.py":  # commands are the top of the house
            continue
        for name, _ in imports(path):
            parts = name.split(".")
            if parts[0] != "langchain_uno" or len(parts) == 1:
                continue
            if RANK[FRONT.get(parts[1], parts[1])] > RANK[own]:
                wrong.append(f"{show(path)} imports {name}")
    assert wrong == []


def test_the_product_knows_neither_its_tests_nor_the_lab() -> None:
    wrong = [
        f"{show(path)} imports {name}"
        for path in [*modules(), *outside("examples")]
        for name, _ in imports(path)
        if name.split(".")[0] in ("lab", "tests")
    ]
    assert wrong == []


def test_graphs_and_trainers_are_imported_by_their_full_names() -> None:
    bare = [
        f"{show(path)}: {name}"
        for path in all_python()
        for name, _ in imports(path)
        if name.split(".")[0] in ("graphs", "trainers")
    ]
    assert bare == []


def defined(tree: ast.Module) -> set[str]:
    """The names that a module has when it is imported."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def in_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as ruff sorts them (RUF022)."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("path", modules(), ids=show)
def test_what_a_package_hands_on_is_explicit_sorted_and_true(path: Path) -> None:
    tree = parsed(path)
    found = [
        node.value
        for node in tree.body
        if (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
        or (isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "__all__")
    ]
    if not found:
        assert path.name != "__init__.py" or len(tree.body) <= 1, f"{show(path)} has no __all__"
        return
    names = ast.literal_eval(found[0])  # type: ignore[arg-type]
    assert names == sorted(set(names), key=in_order)
    lazy = set(FRONT) if path == PACKAGE / "__init__.py" else set()
    assert set(names) - defined(tree) - lazy == set()


def test_every_third_party_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for_users = [line for name, lines in extras.items() if name != "dev" for line in lines]
    assert undeclared(modules(), [*project["dependencies"], *for_users]) == set()
    tests = sorted((REPO / "tests").rglob("*.py"))
    lines = [*project["dependencies"], *for_users, *extras["dev"]]
    brought = [more for line in lines if name_of(line) in installed() for more in brings(line)]
    assert undeclared(tests, [*lines, *brought]) == set()


def undeclared(paths: list[Path], wanted: list[str]) -> set[str]:
    """Imports whose package no line of ``wanted`` names: some environment happens to have it."""
    declared = {name_of(line) for line in wanted}
    homes = packages_distributions()
    own = {"langchain_uno", "lab", "tests", *(path.stem for path in paths)}
    missing = set()
    for path in paths:
        for name, _ in imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in own:
                continue
            owners = {norm(d) for d in homes.get(top, [top])}
            if len(owners) > 1:  # a namespace that packages share: whose is this module?
                owners = {d for d in owners if holds(d, name)} or owners
            if not declared & owners:
                missing.add(f"{name} ({show(path)})")
    return missing


def name_of(line: str) -> str:
    return norm(re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0])


def brings(line: str) -> list[str]:
    """What a package asks for itself, whatever its extras."""
    return [more for more in requires(name_of(line)) or () if "extra ==" not in more]


@cache
def installed() -> frozenset[str]:
    return frozenset(norm(one.name) for one in distributions())


@cache
def files_of(package: str) -> frozenset[str]:
    return frozenset(str(file) for file in files(package) or ())


def holds(package: str, module: str) -> bool:
    place = module.replace(".", "/")
    return not files_of(package).isdisjoint({f"{place}.py", f"{place}/__init__.py"})


def test_every_extra_that_is_named_exists() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    pages = [REPO / "README.md", *(REPO / "docs").rglob("*.md"), *modules()]
    found = [re.findall(r"langchain-uno\[([a-z,]+)\]", page.read_text()) for page in pages]
    named = {extra for names in found for several in names for extra in several.split(",")}
    assert named and named <= project["optional-dependencies"].keys()


def norm(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_packages_of_pyproject_are_those_on_disk() -> None:
    listed = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {
        ".".join(p.parent.relative_to(REPO).parts) for p in modules() if p.name == "__init__.py"
    }
    assert set(listed) == on_disk


def unsafe(tree: ast.Module) -> list[str]:
    """What runs words or unpacks pickles: imports, and calls by name."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            found.append(node.module or "")
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in ("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"):
                found.append(name)
            elif name.endswith("torch.load") and given.get("weights_only") != "True":
                found.append(f"{name} without weights_only=True")
            elif given.get("allow_pickle", "False") != "False":
                found.append(f"{name} with allow_pickle")
            elif name.endswith(("read_pickle", "to_pickle")):
                found.append(name)
    return found


PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize("path", modules(), ids=show)
def test_nothing_is_unpickled_and_no_words_are_run(path: Path) -> None:
    assert unsafe(parsed(path)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "eval('1')",
        "exec(text)",
        "x = compile(text, 'a', 'exec')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=chosen)",
        "frame.to_pickle(path)",
    ],
)
def test_what_is_unsafe_is_seen(source: str) -> None:
    assert len(unsafe(ast.parse(source))) == 1


def test_what_is_safe_is_let_through() -> None:
    fine = "model.eval()\nre.compile('a')\nnp.load(p, allow_pickle=False)\nast.literal_eval(t)\n"
    assert unsafe(ast.parse(fine + "torch.load(p, weights_only=True)")) == []


@pytest.mark.parametrize("link", ["graphs", "trainers"])
def test_links_are_relative(link: str) -> None:
    assert (PACKAGE / link).is_symlink()
    assert str((PACKAGE / link).readlink()) == f"../{link}"
