"""Reviewing what is taught, trying a release on some people, reading the report."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app as cli
from langchain_uno.home import Home
from langchain_uno.learning.review import review_table
from langchain_uno.models.protocols import Engine
from langchain_uno.releases import canary
from langchain_uno.releases.history import read_history
from langchain_uno.releases.traffic import read_traffic
from langchain_uno.reports import write_report
from langchain_uno.web.console import console_app
from tests.unit_tests.console.parts import OPERATORS, PAYLOADS, enter, post, words
from tests.unit_tests.graphs.refresh_parts import TRIED, logs, make_home, refresh, tiny_engine
from tests.unit_tests.reports.report_parts import cluster, report


@pytest.fixture(scope="module")
def engine(tiny_model_path: Path) -> Iterator[Engine]:
    one = tiny_engine(tiny_model_path)
    yield one
    one.close()


@pytest.fixture(scope="module")
def ready(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose refresh has stopped after the pairs."""
    root = tmp_path_factory.mktemp("ready") / "home"
    refresh(make_home(root, logs(36)), engine, TRIED, until="pairs")
    return root


@pytest.fixture
def reviewed(ready: Path, tmp_path: Path) -> Home:
    shutil.copytree(ready, tmp_path / "reviewed")
    return Home(tmp_path / "reviewed")


def entries(html: str) -> dict[str, tuple[str, str]]:
    """Row id -> (state, words) of the review page."""
    found = re.findall(r'<article class="entry (\w+)" id="([^"]+)".*?</article>', html, re.DOTALL)
    whole = re.findall(r'<article class="entry .*?</article>', html, re.DOTALL)
    return {row: (state, words(text)) for (state, row), text in zip(found, whole, strict=True)}


def test_a_rule_is_excluded_edited_and_restored(reviewed: Home) -> None:
    client = enter(console_app(reviewed.root, tokens=OPERATORS, with_model=False), "review")
    table = review_table(reviewed, kind="rule")
    shown = entries(client.get("/review").text)
    assert list(shown) == [row.id for row in table.rows][:50]
    row = table.rows[0]
    fields = {"id": row.id, "cluster": row.cluster, "at_kind": "rule", "at_cluster": row.cluster}
    done = post(client, "/review", **fields, decision="exclude", why="wrong for us")
    where = done.headers["location"]
    assert where.startswith(f"/review?kind=rule&cluster={row.cluster}&said=")
    assert where.endswith(f"#{row.id}")
    state, text = entries(client.get(where).text)[row.id]
    assert state == "excluded" and "exclude by reviewer" in text and "wrong for us" in text
    post(client, "/review", **fields, decision="restore")
    post(client, "/review", **fields, decision="edit", text="Answer in <b>two</b> lines.")
    page = client.get("/review").text
    first = re.search(rf'id="{row.id}".*?(<button.*?>)', page, re.DOTALL)
    assert first and first[1] == "<button disabled hidden>"  # Enter in "Why" presses it
    state, text = entries(page)[row.id]
    assert state == "edited" and "Answer in <b>two</b> lines." in text
    assert {e["by"] for e in read_history(reviewed) if "review" in e["what"]} == {"reviewer"}
    pending = review_table(reviewed).pending
    assert pending and f"{pending} decision" in words(client.get("/review").text)


def test_a_pair_is_excluded_and_a_rule_of_ones_own_added(reviewed: Home) -> None:
    client = enter(console_app(reviewed.root, tokens=OPERATORS, with_model=False), "review")
    pair = review_table(reviewed, kind="pair").rows[0]
    page = client.get("/review?kind=pair").text
    assert (pair.chosen or "") in unescape(page) and (pair.rejected or "") in unescape(page)
    logs = review_table(reviewed, kind="log").rows
    shown = entries(client.get("/review?kind=log").text)
    assert logs and all(" ".join((r.rejected or "").split()) in shown[r.id][1] for r in logs[:50])
    for row in logs[:50]:
        said = [row.said or "", row.chosen or "", f"Run {row.run}"]
        assert all(" ".join(text.split()) in shown[row.id][1] for text in said)
    post(client, "/review", id=pair.id, cluster=pair.cluster, decision="exclude", why="untrue")
    rows = review_table(reviewed, kind="pair").rows
    assert [r.state for r in rows if r.id == pair.id] == ["excluded"]
    post(client, "/review", decision="add", cluster=pair.cluster, text="Thank the customer.")
    mine = [r for r in review_table(reviewed, kind="rule").rows if r.source == "own"]
    assert [(r.text, r.decision.by) for r in mine if r.decision] == [
        ("Thank the customer.", "reviewer")
    ]
    assert post(client, "/review", decision="add", cluster="none", text="x").status_code == 422
    assert post(client, "/review", id="rule-none", decision="exclude").status_code == 422
    assert client.get("/review?cluster=none").status_code == 422
    some, none = client.get("/review").text, client.get("/review?kind=none&page=99").text
    assert entries(none) == entries(some) and "nones" not in none
    long = post(client, "/review", id=pair.id, decision="restore", why="x" * 501)
    assert (long.status_code, "500 characters" in long.text) == (422, True)


def test_who_may_only_read_sees_the_table_and_decides_nothing(reviewed: Home) -> None:
    client = enter(console_app(reviewed.root, tokens=OPERATORS, with_model=False), "read")
    page = client.get("/review").text
    assert entries(page) and "<textarea" not in page
    row = review_table(reviewed, kind="rule").rows[0]
    assert post(client, "/review", id=row.id, decision="exclude").status_code == 403
    assert review_table(reviewed, kind="rule").rows[0].state == row.state


@pytest.mark.parametrize("text", PAYLOADS)
def test_a_decided_text_stays_text(reviewed: Home, text: str) -> None:
    client = enter(console_app(reviewed.root, tokens=OPERATORS, with_model=False))
    before = len(re.findall("<(script|img|svg|iframe|meta|base|a) ", client.get("/review").text))
    row = review_table(reviewed, kind="rule").rows[0]
    post(client, "/review", id=row.id, decision="edit", text=text, why=text)
    page = client.get("/review").text
    assert len(re.findall("<(script|img|svg|iframe|meta|base|a) ", page)) == before
    shown = re.sub(r"(?s)<textarea.*?</textarea>", "", page)
    assert not any(c in shown for c in "\u202e\u2066\x00\x1b")


def test_a_canary_is_started_raised_and_ended(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    first, second = make(), make(promote=False)
    client = enter(app)
    budget = {"people": "200", "days": "14"}

    def shares() -> dict[str | None, float]:
        traffic = read_traffic(home)
        return {s.release: round(s.share, 6) for s in traffic.shares} if traffic else {}

    assert "Start the canary" in client.get(f"/releases/{second}").text
    done = post(client, f"/releases/{second}/canary", share="20", why="a try", **budget)
    assert done.status_code == 303
    assert shares() == {first: 0.8, second: 0.2}
    for path in ("/", "/releases"):
        shown = words(client.get(path).text)
        assert f"{second} answers 20 % of the people" in shown
        assert "begun by releaseer : a try" in shown or "begun by releaseer: a try" in shown
    assert "act on its figures" not in words(client.get("/").text)
    page = client.get(f"/releases/{second}").text
    assert "Raise the share" in page and "People at most" not in page
    assert "Its budget stays 200 people and 14 days." in words(page)
    more = {"people": "900", "days": "14"}
    done = post(client, f"/releases/{second}/canary", share="30", **more)
    assert "stays 200 people" in words(client.get(done.headers["location"]).text)
    post(client, f"/releases/{second}/canary", share="40", **budget)
    assert shares()[second] == 0.4
    said = post(client, "/canary/watch").headers["location"]
    assert "The canary: running" in words(client.get(said).text)
    post(client, "/canary/stop", why="enough")
    assert shares() == {first: 1.0}
    assert "End the canary" not in client.get("/releases").text
    assert {e["by"] for e in read_history(home)[2:]} == {"releaseer"}
    bad = post(client, f"/releases/{second}/canary", share="many", **budget)
    assert (bad.status_code, shares()) == (422, {first: 1.0})


def test_the_report_is_shown_and_runs_nothing(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    name = make()
    client = enter(app)
    assert client.get(f"/report/{name}").status_code == 404
    assert client.get("/report/..%2fx").status_code in (404, 422)
    assert "/report/" not in client.get(f"/releases/{name}").text
    text = "<script>alert(1)</script>"
    told = {"release": name, "clusters": [cluster("c0", text)]}
    write_report(home, report(text).model_copy(update=told))
    assert f'href="/report/{name}"' in client.get(f"/releases/{name}").text
    found = client.get(f"/report/{name}")
    assert found.status_code == 200 and text not in found.text
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "sandbox" in policy and "script-src" not in policy
    page = client.get("/clusters/c0").text
    assert "Before and after" in page and text not in page
    assert '<svg class="map"' in client.get("/clusters").text
    assert '<svg class="map"' not in client.get("/clusters?q=x").text
    shutil.rmtree(home.reports)
    assert '<svg class="map"' not in client.get("/clusters").text
    assert "Before and after" not in client.get("/clusters/c0").text


def test_a_cluster_shows_who_stands_behind_its_rules(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    name = make()
    told = {"release": name, "clusters": [cluster("c0", "Be brief.", rules=["Be brief."])]}
    write_report(home, report("x").model_copy(update=told))
    found = enter(app).get("/clusters/c0")
    assert found.status_code == 200
    shown = words(found.text)
    assert "Be brief. 3 people, taught to all" in shown and "Be brief. once 1 person" in shown
    assert "With the module (better)" in shown


@pytest.mark.parametrize(
    ("people", "days"), [("200", "3000000"), ("200", "inf"), ("200", "nan"), ("1000001", "14")]
)
def test_a_canary_without_end_is_refused(
    app: Any, home: Home, make: Callable[..., str], people: str, days: str
) -> None:
    make()
    second = make(promote=False)
    client = enter(app)
    path = f"/releases/{second}/canary"
    found = post(client, path, share="20", people=people, days=days)
    assert (found.status_code, (home.path / "canary.json").exists()) == (422, False)
    assert client.get("/").status_code == client.get("/releases").status_code == 200


@pytest.mark.parametrize("days", ["null", "3000000.0", "nan"])
def test_a_damaged_canary_is_a_line_and_the_rest_is_shown(
    app: Any, home: Home, make: Callable[..., str], days: str
) -> None:
    first, second = make(), make(promote=False)
    client = enter(app)
    post(client, f"/releases/{second}/canary", share="20", people="200", days="14")
    path = home.path / "canary.json"
    path.write_text(path.read_text().replace('"days": 14.0', f'"days": {days}'))
    for where in ("/", "/releases", f"/releases/{second}"):
        assert client.get(where).status_code == 200, where
    for where in ("/", "/releases"):
        shown = words(client.get(where).text)
        assert "can't be read as a canary" in shown and first in shown


def test_what_is_edited_again_is_the_text_itself(reviewed: Home) -> None:
    client = enter(console_app(reviewed.root, tokens=OPERATORS, with_model=False))
    row = review_table(reviewed, kind="rule").rows[0]
    text = "Sag \u200fAuf\u00adgabe\u202e <b> \U0001f3f4\U000e0067 &amp;"
    post(client, "/review", id=row.id, decision="edit", text=text)
    page = client.get("/review").text
    box = re.search(rf'id="{row.id}".*?<textarea[^>]*>(.*?)</textarea>', page, re.DOTALL)
    assert box and unescape(box[1]) == review_table(reviewed, kind="rule").rows[0].edited


def test_a_decided_canary_waits_for_a_person(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    first, second = make(), make(promote=False)
    client = enter(app)
    plan = canary.start(home, second)
    late = plan.model_copy(update={"started": plan.started - timedelta(days=15)})
    (home.path / "canary.json").write_text(late.model_dump_json())
    waits = words(client.get("/").text).partition("Canary")[0]
    assert f"The canary of {second} has spent its budget undecided: act on its figures" in waits
    shown = client.get("/releases").text
    assert "what answered when it was made: the base model" in words(shown)
    post(client, f"/releases/{second}/promote")
    assert f"what answered when it was made: {first}" in words(client.get("/releases").text)


def test_a_second_click_and_a_stale_page_roll_back_no_further(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    first, second, third = make(), make(), make()
    client = enter(app)

    def offered() -> list[str]:
        page = client.get("/releases").text.partition('action="/rollback"')[2]
        return re.findall(r'<option(?: value="([^"]*)")?>', page.partition("</select>")[0])

    def answers() -> str | None:
        traffic = read_traffic(home)
        return traffic.current.release if traffic and traffic.current else None

    chosen = offered()[0]
    for _ in range(2):
        post(client, "/rollback", to=chosen, why="complaints")
        assert answers() == second
    post(client, f"/releases/{third}/promote")
    post(client, f"/releases/{first}/promote")
    post(client, "/rollback", to=chosen)
    assert answers() == second, "where the page said that it goes"
    post(client, f"/releases/{first}/promote")
    assert offered() == ["base", "", ""], "the base model stands there once"
    post(client, "/rollback", to="base")
    assert answers() is None


@pytest.mark.parametrize(
    ("when", "said"), [("always", "what refreshes publish"), ("routes", "what changes a route")]
)
def test_a_hold_says_what_waits(app: Any, home: Home, when: str, said: str) -> None:
    client = enter(app)
    done = post(client, "/hold", when=when).headers["location"]
    assert f"Held: a person promotes {said}." in words(client.get(done).text)


def test_a_list_beyond_its_end_says_so(reviewed: Home) -> None:
    home = ["--home", str(reviewed.root)]
    told = CliRunner().invoke(cli, ["review", "list", "--offset", "999", *home])
    assert (told.exit_code, "No row of " in told.stdout, "Rows 1000" in told.stdout) == (
        0,
        True,
        False,
    )


def test_a_list_says_which_logs_are_held_out(reviewed: Home) -> None:
    home = ["--home", str(reviewed.root)]
    shown = CliRunner().invoke(cli, ["review", "list", "--kind", "log", *home]).stdout
    rows = review_table(reviewed, kind="log").rows
    held = [row for row in rows if row.reason]
    assert 0 < len(held) < len(rows)
    for row in held:
        assert f"{row.id} ({row.cluster}, in, held out for verification, 1 person)" in shown
    assert shown.count("held out for verification") == len(held)


def test_what_changed_leads_to_its_evidence(app: Any, make: Callable[..., str]) -> None:
    first = make()
    client = enter(app)
    for sides in ({"old": "base", "new": first}, {"old": first, "new": "base"}):
        page = client.get("/diff", params=sides).text
        assert "Bytes" in page
        links = re.findall(r'<th scope="row"><a href="([^"]+)"', page)
        assert links == [f"/clusters/c{n}?release={first}" for n in range(3)]
        assert client.get(links[0]).status_code == 200
