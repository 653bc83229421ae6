"""The page of examples/feedback_server.py in a real browser: what is clicked is what is journalled.

Needs Chromium (CHROMIUM names it where it is not on the path). AXE_CORE is the path of axe-core's
axe.min.js for the check of accessibility. PAGE_SHOTS is a folder for screenshots to look at.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from fastapi.testclient import TestClient
from langchain_core.language_models import FakeListChatModel

from langchain_uno.logs.journal import Journal
from langchain_uno.records import Feedback
from langchain_uno.web.feedback import ENV_SECRET

REPO = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
QUESTION = "A customer asks about the kettle Sorel. We know this: the price is 30 euros. <script>"
SECRET = "a secret of more than thirty-two characters"

slow_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: name one in CHROMIUM"),
]


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_SECRET, SECRET)


def app_of(home: Path, **how: Any) -> Any:
    spec = importlib.util.spec_from_file_location("page", REPO / "examples" / "feedback_server.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_app(str(home), **how)


@contextmanager
def served(home: Path, **how: Any) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(app_of(home, **how), host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.05)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def journalled(home: Path) -> list[Feedback]:
    with Journal(home / "journal", readonly=True) as journal:
        return journal.feedback()


def shot(page: Any, name: str) -> None:
    if folder := os.environ.get("PAGE_SHOTS"):
        page.screenshot(path=f"{folder}/page-{name}.png", full_page=True)


def ask(page: Any, question: str = QUESTION) -> Any:
    """Ask, wait for the answer, and return its card."""
    before = page.locator("article").count()
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    card = page.locator("article").first
    page.wait_for_function("n => document.querySelectorAll('article').length > n", arg=before)
    card.get_by_role("group").wait_for()
    return card


def said(card: Any, words: str) -> None:
    card.locator(".status", has_text=words).wait_for()


def pressed(card: Any) -> list[str]:
    return [b.get_attribute("aria-pressed") for b in card.locator("[data-score]").all()]


def test_the_page_needs_nothing_inline_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    model = FakeListChatModel(responses=["<b>fine</b>"])
    with TestClient(app_of(tmp_path / "home", model=model)) as client:
        page = client.get("/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for path in ("page.js", "page.css"):
            text = client.get(f"/{path}").text
            assert text and "http" not in text and "innerHTML" not in text
        assert re.findall(r'\s(?:on\w+|style)=|<script(?! type="module" src)', page.text) == []
        assert client.post("/ask", json={"text": ""}).status_code == 422
        kind = {"Content-Type": "application/json"}
        assert client.post("/ask", content=rb'{"text": "\ud800"}', headers=kind).status_code == 422
        assert "visitor" in page.headers["set-cookie"]  # so the first two questions are one voice's
        assert "set-cookie" not in client.post("/ask", json={"text": "Hello?"}).headers
        assert client.get("/feedback_server.py").status_code == 404


@pytest.mark.parametrize("mark", [pytest.param(None, marks=slow_browser)], ids=["chromium"])
def test_what_is_clicked_is_what_is_journalled(tmp_path: Path, browser: Any, mark: None) -> None:
    home = tmp_path / "home"
    errors: list[str] = []
    hosts: set[str] = set()
    posts: list[str] = []
    with served(home) as url:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda r: hosts.add(urlsplit(r.url).hostname or "data"))
        page.on("request", lambda r: r.url.endswith("feedback") and posts.append(r.post_data))
        page.goto(url)

        card = ask(page)
        assert card.locator(".question").inner_text() == QUESTION
        assert "30 euros" in card.locator(".answer").inner_text()
        [cookie] = context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Lax"
        shot(page, "asked")

        # Beside the buttons: between the thumbs, on the answer, on the line below.
        box = card.locator("[data-score='1']").bounding_box()
        page.mouse.click(box["x"] + box["width"] + 4, box["y"] + box["height"] / 2)
        card.locator(".answer").click()
        card.locator(".outcome").click()
        assert posts == [] and pressed(card) == ["false", "false"]

        # Up, then down by the keyboard; a comment and an edit leave the thumb.
        card.get_by_role("button", name="Good answer").click()
        said(card, "Saved")
        assert pressed(card) == ["true", "false"]
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        page.wait_for_function("document.querySelector('[data-score=\"0\"]').ariaPressed == 'true'")
        said(card, "Saved")
        card.get_by_role("button", name="Comment", exact=True).press("Enter")
        page.keyboard.type("Please use bullet points.")
        shot(page, "commenting")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        said(card, "Saved")
        card.get_by_role("button", name="Edit", exact=True).click()
        card.get_by_label("The answer as you want it").fill("- The price is 30 euros.")
        card.get_by_role("button", name="Save the edit").click()
        said(card, "Saved")
        assert pressed(card) == ["false", "true"]
        assert len(posts) == 4
        shot(page, "saved")

        # Offline: it says so, keeps what was pressed, and sends it when asked to.
        second = ask(page, QUESTION + " Two.")
        context.set_offline(True)
        second.get_by_role("button", name="Good answer").click()
        said(second, "Not saved: no connection")
        assert pressed(second) == ["true", "false"]
        shot(page, "offline")
        second.get_by_role("button", name="Try again").click()
        said(second, "Not saved: no connection")
        context.set_offline(False)
        second.get_by_role("button", name="Try again").click()
        said(second, "Saved")
        # The same thumb again takes it back.
        third = ask(page, QUESTION + " Three.")
        third.get_by_role("button", name="Bad answer").click()
        said(third, "Saved")
        third.get_by_role("button", name="Bad answer").click()
        said(third, "Nothing is saved")
        assert pressed(third) == ["false", "false"]
        # Three presses at once: the last one stands.
        page.evaluate(
            "for (const n of [1, 0, 1]) document.querySelector(`[data-score='${n}']`).click()"
        )
        said(third, "Saved")
        assert pressed(third) == ["true", "false"]
        # The server took it, but its answer was lost: taking it back must reach the server.
        lost = ask(page, QUESTION + " Lost.")
        page.route("**/feedback", lambda route: (route.fetch(), route.abort()))
        lost.get_by_role("button", name="Good answer").click()
        said(lost, "Not saved: no connection")
        page.unroute("**/feedback")
        lost.get_by_role("button", name="Good answer").click()
        said(lost, "Nothing is saved")
    with served(home, ttl_s=0.5) as url_of_short:
        page.goto(url_of_short)
        late = ask(page, QUESTION + " Late.")
        page.wait_for_timeout(700)
        late.get_by_role("button", name="Good answer").click()
        said(late, "can no longer be rated")
        assert pressed(late) == ["false", "false"]
        shot(page, "expired")
        late.locator(".again", has_text="Ask again").click()
        page.wait_for_function("document.querySelectorAll('article').length == 2")
    with served(home) as url_of_other:  # half a second is short for a click on a busy machine
        other = browser.new_context()
        stranger = other.new_page()
        stranger.goto(url_of_other)
        card = ask(stranger, QUESTION + " Stranger.")
        card.get_by_role("button", name="Bad answer").click()
        said(card, "Saved")
    assert errors == [] and hosts <= {"127.0.0.1", "data"}

    kept = journalled(home)
    mine = {f.user_id for f in kept[:-1]}
    assert len(mine) == 1 and kept[-1].user_id not in mine
    assert all((f.user_id or "").startswith("visitor-") for f in kept)
    assert [(f.key, f.score, f.comment, f.correction) for f in kept] == [
        ("thumb", 0.0, None, None),
        ("comment", None, "Please use bullet points.", None),
        ("correction", None, None, "- The price is 30 euros."),
        ("thumb", 1.0, None, None),
        ("thumb", 1.0, None, None),
        ("thumb", None, None, None),
        ("thumb", 0.0, None, None),
    ]


@pytest.mark.parametrize("scheme", [pytest.param(s, marks=slow_browser) for s in ("light", "dark")])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_can_be_read(
    tmp_path: Path, browser: Any, scheme: str, width: int
) -> None:
    axe = os.environ.get("AXE_CORE")
    if not axe:
        pytest.skip("AXE_CORE does not name axe-core's axe.min.js")
    model = FakeListChatModel(responses=["A long answer. " * 40 + "w" * 300])
    with served(tmp_path / "home", model=model) as url:
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page = context.new_page()
        page.goto(url)
        card = ask(page)
        card.get_by_role("button", name="Bad answer").click()
        said(card, "Saved")
        card.get_by_role("button", name="Comment", exact=True).click()
        other = ask(page, "x" * 300)
        context.set_offline(True)
        other.get_by_role("button", name="Good answer").click()
        said(other, "Not saved")
        shot(page, f"{width}-{scheme}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        page.evaluate(Path(axe).read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")
        serious = [
            (v["id"], [n["html"] for n in v["nodes"]])
            for v in found["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert serious == []
        assert found["passes"]
