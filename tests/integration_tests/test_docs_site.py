"""The documentation site builds without a warning, and its pages ask no other host for anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

REPO = Path(__file__).resolve().parents[2]
TOUR = REPO / "docs" / "tour.ipynb"
LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
"""Elements that a browser fetches by itself."""


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.classes |= set(given.get("class", "").split())
        if tag in LOADS and given.get("rel") != "canonical":
            self.loads.append(given.get(LOADS[tag], ""))
        if tag == "a":
            self.links.append(given.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=REPO,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "excluded from the built site" not in done.stderr, done.stderr
    return folder


def pages(site: Path) -> Iterator[tuple[Path, Page]]:
    for path in sorted(site.rglob("*.html")):
        yield path, Page(path.read_text(encoding="utf-8"))


def test_every_page_of_docs_is_in_the_menu(site: Path) -> None:
    menu = set(Page((site / "index.html").read_text(encoding="utf-8")).links)
    named = {p.relative_to(REPO / "docs").with_suffix("") for p in (REPO / "docs").rglob("*.md")}
    assert {f"{name.as_posix()}/" for name in named} - menu == set()
    assert {"tour/", "CHANGELOG/", "CONTRIBUTING/", "api/"} <= menu


def test_every_heading_of_docs_is_one_on_the_site(site: Path) -> None:
    """A block whose first line is not understood swallows what follows it."""
    for path in (REPO / "docs").rglob("*.md"):
        text = re.sub(r"(?ms)^```.*?^```$", "", path.read_text(encoding="utf-8"))
        page = site / path.relative_to(REPO / "docs").with_suffix("") / "index.html"
        headings = page.read_text(encoding="utf-8").count('<h2 id="')
        assert headings == len(re.findall(r"(?m)^## ", text)), path


def test_no_page_asks_another_host(site: Path) -> None:
    asked = [
        (path.name, url)
        for path, page in pages(site)
        for url in page.loads
        if urlsplit(url).scheme not in ("", "data") or url.startswith("//")
    ]
    # The theme's script fetches mermaid from elsewhere where a page has a diagram of it.
    asked += [(path.name, "mermaid") for path, page in pages(site) if "mermaid" in page.classes]
    for css in site.rglob("*.css"):
        text = css.read_text(encoding="utf-8")
        asked += [(css.name, url) for url in re.findall(r"(?:url\(|@import )['\"]?(https?:)", text)]
    assert asked == []


def test_links_lead_to_files_of_the_site(site: Path) -> None:
    dead, seen = [], 0
    for path, page in pages(site):
        if path.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or not parts.path:
                continue
            seen += 1
            target = (path.parent / unquote(parts.path)).resolve()
            if not (target if target.is_file() else target / "index.html").is_file():
                dead.append((str(path.relative_to(site)), link))
    assert dead == []
    assert seen > 300


def test_the_reference_has_what_people_import(site: Path) -> None:
    text = (site / "api" / "index.html").read_text(encoding="utf-8")
    for name in ("chat_models.UNOChatModel", "callbacks.UNOFeedbackHandler.feedback",
                 "middleware.UNOMiddleware", "train.refresh_home", "erasure.forget",
                 "web.feedback.FeedbackTokens.visitor", "testing.make_tiny_model"):  # fmt: skip
        assert f'id="langchain_uno.{name}"' in text, name
    assert re.findall(r":(?:class|func|meth|mod):", text) == []


def test_the_tour_has_its_outputs(site: Path) -> None:
    cells = [c for c in json.loads(TOUR.read_text())["cells"] if c["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells)
    text = (site / "tour" / "index.html").read_text(encoding="utf-8")
    assert "Next step: reply to this message." in text


@pytest.mark.slow
def test_the_outputs_of_the_tour_are_todays() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    stored = nbformat.read(TOUR, as_version=4)
    run = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(run, timeout=900, kernel_name="python3").execute()

    def said(notebook: object) -> list[str]:
        return [
            "".join(out.get("text", "") for out in cell.outputs if out.name == "stdout")
            for cell in notebook.cells  # type: ignore[attr-defined]
            if cell.cell_type == "code"
        ]

    assert said(run) == said(stored)
