"""Hooks of mkdocs: what the site has besides the pages of docs/.

README.md is the first page. A link that leads out of docs/ (CHANGELOG.md, lab/, examples/) leads to
a copy of that file. A notebook is written out as Markdown, with the outputs that are stored in it.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

__all__ = ["on_files", "on_page_content", "on_page_markdown", "tour"]

REPO = Path(__file__).resolve().parents[1]
_FENCE = re.compile(r"(^```.*?^```$)", re.M | re.S)
_TAG = re.compile(r"^(```\w+) no-run$", re.M)
"""Says that the tests do not run a block; the site's Markdown would take it for no block at all."""
_LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")
_ROLE = re.compile(r":\w+:<code>~?(?:[\w.]*\.)?(\w+)</code>")
"""A Sphinx role of a docstring, as Markdown leaves it."""


def on_files(files: Any, config: Any) -> Any:
    """Add the notebooks as pages, and all files that pages link to outside docs/."""
    for notebook in (REPO / "docs").glob("*.ipynb"):
        files.append(File.generated(config, f"{notebook.stem}.md", content=tour(notebook)))
    waiting = ["README.md", *(f"docs/{f.src_uri}" for f in files if f.is_documentation_page())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        source = REPO / path
        if not path.startswith("docs/"):
            files.append(File.generated(config, _uri(path), abs_src_path=str(source)))
        if source.suffix != ".md" or not source.exists():
            continue
        for target in _targets(path, source.read_text(encoding="utf-8")):
            outside = not target.startswith("docs/") and (REPO / target).is_file()
            if outside and target not in seen:
                seen.add(target)
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links between files of the checkout into links between files of the site.

    What is said to the tests alone goes.
    """
    markdown = _TAG.sub(r"\1", markdown)
    uri = page.file.src_uri
    path = {"index.md": "README.md"}.get(uri, uri if (REPO / uri).is_file() else f"docs/{uri}")

    def moved(match: re.Match[str]) -> str:
        target = _uri(_resolved(path, match[2]))
        return match[1] + posixpath.relpath(target, posixpath.dirname(uri) or ".")

    return _outside_fences(markdown, lambda text: _LINK.sub(moved, text))


def on_page_content(html: str, **_: Any) -> str:
    """Show the roles of docstrings as code."""
    return _ROLE.sub(r"<code>\1</code>", html)


def tour(notebook: Path) -> str:
    """Return a notebook as Markdown: text, code, and the text that the code had printed."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]).strip()
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        said = "".join("".join(out.get("text", "")) for out in cell.get("outputs", [])).strip()
        if said:
            parts.append(f"```text\n{said}\n```")
    return "\n\n".join(parts) + "\n"


def _uri(path: str) -> str:
    """Return where a file of the checkout lies in the site."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def _resolved(path: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def _targets(path: str, markdown: str) -> Iterator[str]:
    found: list[str] = []
    _outside_fences(markdown, lambda text: found.extend(m[2] for m in _LINK.finditer(text)) or "")
    return (_resolved(path, link) for link in found)


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts = _FENCE.split(markdown)
    return "".join(part if n % 2 else change(part) for n, part in enumerate(parts))
