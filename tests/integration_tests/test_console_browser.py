"""The console in a real browser: the whole story on the bundled model, and every page for everyone.

``make test-browser`` runs it. CHROMIUM names another Chromium, AXE_CORE the file axe.min.js.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.service import plan_visits, run_service
from langchain_uno.home import Home
from langchain_uno.learning.review import review_table
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Cluster, Feedback, Interaction, Message
from langchain_uno.releases import canary
from langchain_uno.releases.history import read_history
from langchain_uno.releases.load import list_releases
from langchain_uno.releases.publish import publish
from langchain_uno.releases.traffic import read_traffic
from langchain_uno.reports import report_paths, write_report
from tests.unit_tests.console.parts import OPERATORS, PAYLOADS, TOKENS
from tests.unit_tests.releases.samples import draft
from tests.unit_tests.reports.report_parts import cluster, report

pytestmark = pytest.mark.slow

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
AXE = os.environ.get("AXE_CORE")
SCREENS = [(w, scheme) for w in (1280, 390) for scheme in ("light", "dark")]
PAGES = ["/", "/clusters", "/clusters/c0", "/review", "/releases", "/releases/{new}",
         "/diff?old={old}&new={new}", "/try", "/people", "/forget?kind=user&id=u", "/health",
         "/releases/none", "/enter"]  # fmt: skip
QUICK = ["--set", "verify.level=none", "--set", "verify.win_rate=0", "--max-steps", "16"]
"""Every module passes after a short training: nothing here says what a module is worth."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: name a Chromium by CHROMIUM")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def console(home: Home, *words: str, tokens: str = "") -> Iterator[str]:
    """Start the command; yield the address that it prints."""
    env = {**os.environ, "LANGCHAIN_UNO_CONSOLE_TOKENS": tokens}
    server = subprocess.Popen(
        [sys.executable, "-m", "langchain_uno", "console", "--home", str(home.root),
         "--port", "0", *words],
        stdout=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    try:
        assert server.stdout
        found = re.search(r"http://\S+?(?=;|\s)", server.stdout.readline())
        assert found, "the console did not start"
        yield found[0]
    finally:
        server.terminate()
        server.wait()


def command(home: Home, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "langchain_uno", *words, "--home", str(home.root)],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shares(home: Home) -> dict[str | None, float]:
    traffic = read_traffic(home)
    return {s.release: round(s.share, 3) for s in traffic.shares} if traffic else {}


@pytest.mark.timeout(1800)
def test_the_whole_story(browser: Any, tmp_path: Path) -> None:
    """Ask, rate, refresh, review, approve, canary, promote, roll back; the next refresh obeys."""
    home = Home(tmp_path / "home").ensure()
    world = make_world(3, noise=0.2, families=2)
    visits = plan_visits(world, 72)
    with UNOFeedbackHandler(home=str(home.root)) as handler:
        model = UNOChatModel(home=str(home.root), mode="base")
        run_service(world, visits, model, handler)
    page = browser.new_page()
    page.on("dialog", lambda dialog: pytest.fail(f"dialog: {dialog.message}"))

    def press(name: str) -> None:
        page.get_by_role("button", name=name, exact=True).first.click()

    def told(text: str) -> None:
        page.get_by_role("status").filter(has_text=text).first.wait_for()

    def goto(name: str) -> None:
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        page.get_by_role("heading", level=1, name=name).wait_for()

    def ask(text: str, nth: int) -> None:
        page.get_by_label("Your").fill(text)
        press("Ask")
        page.get_by_role("article").nth(nth).wait_for(timeout=120_000)

    with console(home) as address:
        page.goto(address)
        assert "token" not in page.url
        # ask, thumb, comment, edit
        goto("Try it")
        ask(visits[0].query.text, 0)
        page.get_by_role("button", name="Good answer").click()
        page.locator("button[aria-pressed=true][aria-label='Good answer']").wait_for()
        page.get_by_label("Comment").fill("Please number the facts.")
        press("Save")
        told("thumb up, comment")
        page.get_by_text("Edit the answer").click()
        page.get_by_label("The answer as you would have it").fill("1. As it should be.")
        press("Save")
        told("thumb up, comment, edit")
        with Journal(home.journal, readonly=True) as journal:
            mine = {f.key: f for f in journal.feedback() if f.feedback_id.startswith("console-")}
            (asked,) = journal.interactions([mine["score"].run_id])
        assert (mine["score"].score, mine["comment"].comment) == (1.0, "Please number the facts.")
        assert mine["correction"].correction == "1. As it should be."
        assert {(f.source, f.user_id) for f in mine.values()} == {("app", asked.user_id)}
        assert asked.messages[-1].content == visits[0].query.text

        # refresh, review and exclude a pair
        goto("Releases")
        press("Hold")
        told("Held")
        command(home, "train", "--until", "pairs", *QUICK, "--set", "gap.threshold=1.01")
        goto("Review")
        page.locator("select[name=kind]").select_option("pair")
        press("Show")
        page.get_by_label("Why").first.fill("not what we promise")
        page.get_by_role("article").first.get_by_role("button", name="Exclude").click()
        told("Decided")
        excluded = [r for r in review_table(home, kind="pair").rows if r.state == "excluded"]
        assert [r.decision.why for r in excluded if r.decision] == ["not what we promise"]
        command(home, "train", *QUICK, "--set", "gap.threshold=1.01")
        (first,) = list_releases(home)
        assert shares(home) == {}
        rest = review_table(home, kind="pair", limit=None).rows
        assert [r.state for r in rest if r.id == excluded[0].id] == ["excluded"]

        # approve
        goto("Overview")
        page.get_by_role("link", name=first).click()
        page.get_by_label("Why").first.fill("read and found good")
        press("Approve and promote")
        told(f"Release {first} answers.")
        assert shares(home) == {first: 1.0}

        # another release, that a part of the people gets
        goto("Try it")
        press("Begin a new conversation")
        page.get_by_label("Your message").wait_for()
        ask(visits[1].query.text, 0)
        page.get_by_label("Comment").fill("Please add a warning.")
        press("Save")
        told("comment")
        command(home, "train", *QUICK, "--set", "gap.threshold=1.01")
        second = next(name for name in list_releases(home) if name != first)
        goto("Releases")
        page.get_by_role("link", name=second).first.click()
        page.get_by_label("Share in %").fill("20")
        press("Start the canary")
        told("answers 20 % of the people")
        assert shares(home) == {first: 0.8, second: 0.2}
        assert canary.running(home)

        # promote, roll back
        page.get_by_role("link", name=second).first.click()
        press("Approve and promote")
        told(f"Release {second} answers.")
        assert shares(home) == {second: 1.0} and canary.running(home) is None
        page.locator("form[action$='/rollback']").get_by_label("Why").fill("complaints")
        press("Roll back")
        told(f"Release {first} answers.")
        assert shares(home) == {first: 1.0}
    page.close()
    # the next refresh does not undo it
    command(home, "releases", "hold", "--off")
    command(home, "train", *QUICK, "--set", "gap.threshold=1.01")
    assert shares(home) == {first: 1.0}
    assert report_paths(home, second).html.exists()
    done = [(e["what"], e["release"], e["why"]) for e in read_history(home)]
    assert ("promote", first, "read and found good") in done
    assert ("rollback", first, "complaints") in done


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str, str]:
    """A home in which users, rules, names and reports say what would be more than text."""
    home = Home(tmp_path_factory.mktemp("hostile")).ensure()
    with Journal(home.journal) as journal:
        for n, text in enumerate(PAYLOADS):
            asked = [Message(role="user", content=text)]
            one = Interaction(run_id=f"run-{n}", messages=asked, answer=text, user_id=text)
            journal.append_interaction(one)
            journal.append_feedback(Feedback(run_id=f"run-{n}", comment=text, user_id=text))
    long = "averyverylongwordwithoutanyspace" * 12
    clusters = [
        Cluster(id=f"c{n}", size=9, people=5, rules=[text, long], note=text)
        for n, text in enumerate(PAYLOADS)
    ]
    names = []
    for promote in (True, False):
        one = draft().model_copy(update={"clusters": clusters})
        names.append(
            publish(home, one, {}, np.eye(len(clusters), 30, dtype=np.float32), promote=promote)
        )
        clusters = [c.model_copy(update={"rules": [long, *PAYLOADS]}) for c in clusters]
        told = {"release": names[-1], "clusters": [cluster("c0", PAYLOADS[1])]}
        write_report(home, report(PAYLOADS[1]).model_copy(update=told))
    return home, names[0], names[1]


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_every_page_fits_and_runs_nothing_of_what_users_said(
    browser: Any, hostile: tuple[Home, str, str], width: int, scheme: str
) -> None:
    home, old, new = hostile
    alarms: list[str] = []
    with console(home, "--no-model", tokens=OPERATORS) as address:
        base = address.rstrip("/")
        # axe is put into the page from outside, which the page's own policy would refuse
        page = browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
        )
        page.on("dialog", lambda dialog: alarms.append(dialog.message))
        page.on(
            "request",
            lambda r: alarms.append(r.url) if not r.url.startswith((base, "data:")) else None,
        )
        page.goto(f"{base}/enter?token={TOKENS['release']}")
        for path in (*PAGES, "/report/{new}", *(f"/clusters?page={n}" for n in (1, 2))):
            page.goto(base + path.format(old=old, new=new))
            page.wait_for_load_state("networkidle")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            if AXE and "/report/" not in path:
                page.evaluate(Path(AXE).read_text(encoding="utf-8"))
                found = page.evaluate("axe.run()")["violations"]
                bad = [f for f in found if f["impact"] in ("serious", "critical")]
                assert [(path, f["id"], f["nodes"][0]["html"]) for f in bad] == []
        page.close()
    assert alarms == []


def test_the_keyboard_alone_and_no_script_at_all_suffice(
    browser: Any, hostile: tuple[Home, str, str]
) -> None:
    home, old, new = hostile
    with console(home, "--no-model", tokens=OPERATORS) as address:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(address)
        page.keyboard.press("Tab")  # the link that skips
        page.keyboard.press("Tab")
        page.keyboard.type(TOKENS["release"])
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Overview").wait_for()
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            focused = page.locator(":focus")
            reached.append(focused.inner_text())
            outline = page.locator(":focus-visible")
            assert outline.count() == 1, reached
        assert reached[:9] == ["Skip to the page", "Overview", "Clusters", "Review", "Releases",
                               "Try it", "People", "Health", "Leave"]  # fmt: skip
        page.goto(f"{address}releases/{new}")
        page.get_by_label("Share in %").focus()
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text="answers 20 % of the people").wait_for()
        assert shares(home) == {old: 0.8, new: 0.2}
        page.locator("form[action$='/canary/stop']").get_by_role("button").focus()
        page.keyboard.press("Space")
        page.get_by_role("status").filter(has_text="The canary ended").wait_for()
        assert shares(home) == {old: 1.0}
        page.goto(f"{address}clusters")
        page.get_by_label("Search").fill("alert(1)")
        page.keyboard.press("Enter")
        page.get_by_role("status").filter(has_text="cluster").wait_for()
        assert "q=alert" in page.url
        context.close()


def test_what_is_typed_in_try_it_stays(browser: Any, tmp_path: Path) -> None:
    """A thumb, a saved comment and a refusal leave the other fields as they are."""
    home = Home(tmp_path / "home").ensure()
    with console(home) as address:
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.get_by_role("link", name="Try it").click()
        page.get_by_label("Your message").fill("Hello?")
        page.get_by_role("button", name="Ask", exact=True).click()
        thumb = page.get_by_role("button", name="Good answer")
        thumb.wait_for(timeout=120_000)
        comment, message = page.get_by_label("Comment"), page.get_by_label("Your next message")
        comment.fill("half a comm")
        message.fill("a long next message")
        thumb.click()
        page.get_by_text("Saved: thumb up.").wait_for()
        assert thumb.get_attribute("aria-pressed") == "true"
        assert (comment.input_value(), message.input_value()) == (
            "half a comm",
            "a long next message",
        )
        page.get_by_role("button", name="Save", exact=True).click()
        page.get_by_text("Saved: thumb up, comment.").wait_for()
        thumb.click()
        page.get_by_text("Saved: comment.").wait_for()
        assert message.input_value() == "a long next message"
        kept = context.cookies()
        context.clear_cookies()
        page.get_by_role("button", name="Ask", exact=True).click()
        page.get_by_role("alert").wait_for()
        assert message.input_value() == "a long next message"
        context.add_cookies(kept)
        page.get_by_role("button", name="Ask", exact=True).click()
        page.get_by_role("article").nth(1).wait_for(timeout=120_000)
        assert page.get_by_role("alert").count() == 0
        context.close()
