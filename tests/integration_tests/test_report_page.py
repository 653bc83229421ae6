"""The report's page in a real browser: no request, nothing beside the screen, nobody shut out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.reports import write_report
from tests.unit_tests.reports.report_parts import cluster, report

pytestmark = pytest.mark.slow

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
AXE = os.environ.get("AXE_CORE")
LONG = "A sentence that a user may write, with averyveryverylongwordwithoutanyspaceinit" * 9
SCREENS = [(w, scheme) for w in (1280, 390) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: name a Chromium by CHROMIUM")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    attack = "<img src=https://evil.example/x onerror=alert(1)>"
    told = report(f"{attack} {LONG}", clusters=3)
    base = cluster("c9", "plain", route="base", change="none", route_before="base")
    told = told.model_copy(update={"clusters": [*told.clusters, base]})
    return write_report(Home(tmp_path_factory.mktemp("home")), told).html


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_it_fits_the_screen_and_asks_nobody(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}"))
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert asked == [page_file.as_uri()]
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
    page.close()


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
@pytest.mark.skipif(AXE is None, reason="name axe-core's axe.min.js by AXE_CORE")
def test_axe_finds_no_serious_fault(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(page_file.as_uri())
    page.evaluate(Path(str(AXE)).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    bad = [f for f in found if f["impact"] in ("serious", "critical")]
    assert [(f["id"], f["nodes"][0]["html"]) for f in bad] == []
    page.close()
