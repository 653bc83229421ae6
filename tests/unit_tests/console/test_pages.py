"""What the pages show: as text, a page at a time, and true."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from langchain_uno.cli.command import app as cli
from langchain_uno.errors import StoreError
from langchain_uno.home import Home, refresh_lock
from langchain_uno.learning.work import RESULT, refresh_line
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Cluster, Feedback, Interaction, Message, VerifierReport
from langchain_uno.releases.history import note, read_history
from langchain_uno.releases.load import list_releases
from langchain_uno.releases.publish import publish, revoke
from langchain_uno.reports import report_paths
from langchain_uno.web.console import console_app, console_router
from langchain_uno.web.console.shelf import Shelf
from tests.unit_tests.console.parts import OPERATORS, PAYLOADS, enter, forgets, post, words
from tests.unit_tests.releases.samples import draft


def log(n: int, user: str | None = None, **more: Any) -> Interaction:
    asked = [Message(role="user", content=f"question {n}")]
    return Interaction(run_id=f"run-{n}", messages=asked, answer="yes", user_id=user, **more)


def release_of(home: Home, clusters: list[Cluster], **settings: Any) -> str:
    """Publish a release without modules."""
    one = draft().model_copy(update={"clusters": clusters})
    return publish(home, one, {}, np.eye(len(clusters), 5, dtype=np.float32), **settings)


class Tags(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


PAGES = [
    "/",
    "/clusters",
    "/clusters/c0",
    "/releases",
    "/diff?old=base&new=x",
    "/people",
    "/health",
]


def test_a_new_home_has_every_page(app: Any) -> None:
    client = enter(app)
    for path in ("/", "/clusters", "/releases", "/diff", "/people", "/health", "/try"):
        assert client.get(path).status_code == 200, path
    assert "langchain-uno train" in client.get("/releases").text
    assert client.get("/releases/none").status_code == 409
    assert client.get("/releases/..%2f..%2fetc").status_code in (404, 422)


def test_the_overview_says_that_a_refresh_runs_or_was_stopped_and_who_answers(
    app: Any, home: Home
) -> None:
    release = release_of(home, [Cluster(id="c0", size=2, run_ids=["run-1"])])
    client = enter(app)
    shown = words(client.get("/").text)
    assert f"{release} , which has no module: the base model" in shown
    assert "a refresh" not in shown.lower()
    folder = home.work / f"refresh-{'0' * 16}"
    folder.mkdir()
    for name in ("snapshot", "filter", "distil"):
        (folder / f"{name}.json").write_text("{}")
    shown = words(client.get("/").text)
    assert "A refresh was stopped before stage cluster ended: the same call goes on" in shown
    (folder / "until.json").write_text('"distil"')
    shown = words(client.get("/").text)
    assert "A refresh waits before stage cluster, as --until said" in shown
    (folder / "options.json").write_text('["--seed", "3"]')
    call = f"`langchain-uno train --home {home.root.absolute()} --seed 3` goes on"
    assert call in str(refresh_line(home)), "the default namespace needs no name"
    with refresh_lock(home, "as a refresh does"):
        shown = words(client.get("/").text)
        assert "A refresh is running (since " in shown and ", stage cluster)." in shown
        told = CliRunner().invoke(cli, ["status", "--home", str(home.root), "--json"])
        assert ", stage cluster)" in json.loads(told.stdout)["refresh"]
        listed = CliRunner().invoke(cli, ["review", "list", "--home", str(home.root)])
        assert "A refresh is running (since " in listed.stdout
    (folder / RESULT).write_text("{}")
    assert refresh_line(home) is None
    with refresh_lock(home, "as a command does"):
        assert "another command" in str(refresh_line(home))


def test_users_words_stay_text_on_every_page(app: Any, home: Home) -> None:
    """The shape of every page is the same whatever users, rules and names say."""

    def shapes(texts: list[str]) -> list[list[tuple[str, list[str]]]]:
        with Journal(home.journal) as journal:
            journal.append_many([(log(n, text), None) for n, text in enumerate(texts)])
        report = VerifierReport(
            kind="expert", n=4, win_rate=0.5, interval=(0.1, 0.9), passed=False, reason=texts[0]
        )
        # The name is one: what is listed is as long with either texts.
        clusters = [Cluster(id="c0", size=1, rules=texts, note=texts[0], reports=[report])]
        name = release_of(home, clusters)
        note(home, "promote", name, texts[0], texts[1])
        client = enter(console_app(home.root, tokens=OPERATORS, with_model=False))
        found = []
        for path in [*PAGES, *(f"/forget?kind=user&id={n}" for n in ("u",))]:
            page = client.get(path.replace("new=x", f"new={name}"))
            assert page.status_code == 200, path
            found.append([(tag, sorted(attrs)) for tag, attrs in Tags(page.text).found])
            for tag, attrs in Tags(page.text).found:
                assert not any(a.startswith("on") for a in attrs), (path, tag, attrs)
                for where in ("href", "src", "action", "hx-get", "hx-post"):
                    value = attrs.get(where) or "/"
                    assert value.startswith(("/", "#", "data:,")), (path, tag, value)
        for name_ in ("journal", "releases"):
            for old in getattr(home, name_).rglob("*"):
                if old.is_file():
                    old.chmod(0o644)
                    old.unlink()
        (home.path / "history.jsonl").unlink()
        home.traffic.unlink()
        return found

    plain = shapes([f"words {n}" for n in range(len(PAYLOADS))])
    assert shapes(PAYLOADS) == plain


@pytest.mark.parametrize("text", PAYLOADS)
def test_a_text_is_shown_whole_and_its_tricks_are_visible(app: Any, home: Home, text: str) -> None:
    release_of(home, [Cluster(id="c0", size=1, rules=[text])])
    page = enter(app).get("/clusters/c0").text
    rules = re.search(r'<ol class="rules">(.*?)</ol>', page, re.DOTALL)
    assert rules
    shown = re.sub("[\u202e\u2066\x00\x1b]", "\ufffd", text)
    assert words(rules[1]) == " ".join(shown.split())
    assert not any(c in page for c in "\u202e\u2066\x00\x1b")


def test_letters_that_are_joined_and_lines_stay() -> None:
    from langchain_uno.web.console.views import environment

    template = environment().from_string("{{ a }}")
    fine = "نمی\u200cخواهم\n\t👩\u200d💻 50\u00a0% 你好"
    fine += "\u200eab\u200f auf\u00adgabe a\u2060b 🏴\U000e0067"
    assert template.render(a=fine) == fine
    assert template.render(a="a\u2028b\u2067b\x7f") == "a\ufffdb\ufffdb\ufffd"


def test_clusters_come_fifty_a_page_and_are_searched(app: Any, home: Home) -> None:
    many = [Cluster(id=f"c{n}", size=n, rules=[f"Say {n}.", "Be brief."]) for n in range(120)]
    name = release_of(home, many)
    client = enter(app)

    def listed(query: str) -> list[str]:
        return re.findall(r'<th scope="row"><a [^>]*>([^<]*)</a>', client.get(query).text)

    assert listed("/clusters") == [f"c{n}" for n in range(50)]
    assert listed("/clusters?page=3") == [f"c{n}" for n in range(100, 120)]
    assert listed("/clusters?page=99") == listed("/clusters?page=3")
    assert listed("/clusters?page=-1") == listed("/clusters?page=x") == listed("/clusters")
    assert listed("/clusters?q=say+77") == ["c77"]
    assert listed("/clusters?q=BRIEF&page=2") == [f"c{n}" for n in range(50, 100)]
    assert listed("/clusters?route=expert") == []
    assert "120 clusters" in words(client.get(f"/clusters?release={name}").text)
    page = client.get("/clusters?q=brief&page=2").text
    assert "/clusters?q=brief&amp;page=3" in page and "/clusters?q=brief&amp;page=1" in page


def test_a_diff_names_what_changed_alone(app: Any, home: Home) -> None:
    same = [Cluster(id=f"c{n}", size=1) for n in range(60)]
    old = release_of(home, [*same, Cluster(id="d", size=2, rules=["Old."])])
    new = release_of(home, [*same, Cluster(id="d", size=3, rules=["New."])])
    shown = words(enter(app).get(f"/diff?old={old}&new={new}").text)
    assert "1 cluster differs" in shown
    assert "2 → 3 0 + New. - Old." in shown
    assert "61 clusters differ" in words(enter(app).get(f"/diff?old=base&new={new}").text)


def test_a_release_that_waits_is_said_until_somebody_decided(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    first, second = make(), make(promote=False)
    client = enter(app)
    assert f"Release {second} waits to be approved." in words(client.get("/").text)
    assert "Approve and promote" in client.get(f"/releases/{second}").text
    assert "Approve and promote" not in client.get(f"/releases/{first}").text
    post(client, f"/releases/{second}/promote", why="good")
    assert "waits to be approved" not in words(client.get("/").text)
    post(client, "/rollback")
    assert "waits to be approved" not in words(client.get("/").text)  # it was tried


def test_a_changed_manifest_is_read_anew_and_a_broken_one_told(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    name = make()
    client = enter(app)
    assert "6 queries" not in client.get("/clusters/c0").text
    path = home.releases / name / "manifest.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"note": ""', '"note": "6 queries"'))
    assert "6 queries" in client.get("/clusters/c0").text
    path.write_text("{")
    assert client.get("/clusters").status_code == 409
    assert "broken: it can" in client.get("/releases").text


def test_a_report_that_cannot_be_read_takes_no_page_away(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    path = report_paths(home, make()).json
    path.parent.mkdir(parents=True)
    path.write_text("{")
    client = enter(app)
    assert [client.get(page).status_code for page in ("/clusters", "/clusters/c0")] == [200, 200]


def test_people_are_listed_by_how_much_they_said(app: Any, home: Home) -> None:
    with Journal(home.journal) as journal:
        journal.append_many([(log(n, f"asker-{n:03d}"), None) for n in range(60)])
        journal.append_many([(log(100, None), None)])
        for _ in range(3):
            journal.append_feedback(Feedback(run_id="run-1", score=1.0, user_id="talker"))
        journal.append_feedback(Feedback(run_id="run-1", score=1.0, user_id="asker-007"))
    client = enter(app)

    def listed(query: str) -> list[str]:
        return re.findall(r'<th scope="row"[^>]*>([^<]*)</th>', client.get(query).text)

    first = listed("/people")
    assert first[:3] == ["talker", "asker-007", "asker-000"] and len(first) == 50
    assert len(listed("/people?page=2")) == 11
    assert listed("/people?q=alk") == ["talker"]
    assert "1 answer names nobody" in words(client.get("/people").text)


def goes(client: Any, user: str) -> str:
    """What the page says goes with a user, once it is counted."""
    end = time.monotonic() + 30
    while True:
        told = words(client.get("/forget", params={"kind": "user", "id": user}).text)
        if "being counted" not in told or time.monotonic() > end:
            return told


def test_forgetting_needs_the_id_typed_and_gives_a_receipt(app: Any, home: Home) -> None:
    with Journal(home.journal) as journal:
        journal.append_many([(log(1, "ann & <co>"), None), (log(2, "bob"), None)])
    client = enter(app)
    assert "1 answer and 0 pieces of feedback go" in goes(client, "ann & <co>")
    assert "Nothing of that id is in this log" in goes(client, "zoe")
    wrong = forgets(client, "user", "ann & <co>", "ann")
    assert wrong.status_code == 422
    with Journal(home.journal, readonly=True) as journal:
        assert journal.counts() == (2, 0)
    done = forgets(client, "user", "ann & <co>", "ann & <co>")
    told = words(client.get(done.headers["location"]).text)
    assert "1 answer, 0 pieces of feedback, 0 releases revoked" in told
    assert "bob" in told and "ann &" not in told
    with Journal(home.journal, readonly=True) as journal:
        assert [row.run_id for row in journal.rows()] == ["run-2"]
    last = read_history(home)[-1]
    assert (last["what"], last["by"]) == ("forget user", "releaseer")
    assert "ann &" not in (home.path / "history.jsonl").read_text()
    gone = forgets(client, "answer", "run-2", "run-2")
    assert gone.status_code == 303
    assert forgets(client, "all", "x", "x").status_code == 422


def test_who_forgets_sees_which_releases_go(app: Any, home: Home, make: Callable[..., str]) -> None:
    make()
    revoke(home, make(), "a test")
    with Journal(home.journal) as journal:
        journal.append_many([(log(1, "ann"), None), (log(9, "bob"), None)])
    client = enter(app)
    told = goes(client, "ann")
    names = list_releases(home)
    assert len(names) == 2 and all(name in told for name in names)
    assert ", answers" in told and ", revoked" in told
    assert "Then this answers: the base model." in told
    other = goes(client, "bob")
    assert not any(name in other for name in names)
    done = client.get(forgets(client, "user", "ann", "ann").headers["location"])
    assert f"Revoked: {', '.join(names)}. This answers now: the base model." in words(done.text)


def test_many_readers_while_releases_come(app: Any, home: Home, make: Callable[..., str]) -> None:
    make()
    client, failed = enter(app), []

    def look() -> None:
        for path in ("/", "/releases", "/clusters", "/health", "/people"):
            found = client.get(path)
            if found.status_code != 200:
                failed.append((path, found.status_code))

    threads = [threading.Thread(target=look) for _ in range(12)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        make()
    for thread in threads:
        thread.join()
    assert failed == []


def test_headings_are_in_order_and_fields_have_labels(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    name = make()
    client = enter(app)
    for path in ("/", "/clusters", "/clusters/c0", "/releases", f"/releases/{name}", "/diff",
                 "/people", "/forget?kind=user&id=u", "/health", "/try"):  # fmt: skip
        html = client.get(path).text
        levels = [int(n) for n in re.findall(r"<h(\d)", html)]
        assert levels[0] == 1 and levels.count(1) == 1, path
        assert all(b - a <= 1 for a, b in pairwise(levels)), path
        assert "style=" not in html and "http://" not in html and "https://" not in html
        ids = re.findall(r' id="([^"]+)"', html)
        assert len(ids) == len(set(ids)), path


def test_templates_leave_no_text_unescaped_but_the_map(repo: Path) -> None:
    folder = repo / "langchain_uno" / "web" / "console" / "templates"
    found = [
        w for p in folder.glob("*.html") for w in re.findall(r"\w+\s*\|\s*safe\b", p.read_text())
    ]
    assert found == ["map|safe"]


def test_a_figure_that_takes_long_holds_no_page_up(home: Home) -> None:
    shelf, go, counted = Shelf(home), threading.Event(), []

    def slow() -> int:
        go.wait(30)
        counted.append(1)
        return len(counted)

    start = time.monotonic()
    assert shelf.glance("slow", slow) is None
    assert shelf.glance("slow", slow) is None
    assert time.monotonic() - start < 25
    go.set()
    for _ in range(100):
        if (found := shelf.glance("slow", slow)) is not None:
            break
    assert (found, counted) == (1, [1])
    assert shelf.glance("slow", slow) == 1  # it is fresh
    assert shelf.glance("quick", lambda: "at once") == "at once"
    shelf.forget()
    assert shelf.glance("slow", slow) == 2

    def fails() -> None:
        raise StoreError("no journal")

    with pytest.raises(StoreError, match="no journal"):
        shelf.glance("fails", fails)


def test_what_is_no_page_and_what_fails_keep_the_navigation(
    app: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = enter(app)
    found = client.get("/no/such/page")
    assert found.status_code == 404 and '<nav aria-label="Pages">' in found.text
    assert "This page can't be shown" in words(found.text)
    monkeypatch.setattr("langchain_uno.web.console.pages.held", lambda home: 1 / 0)
    broken = client.get("/")
    assert broken.status_code == 500 and '<nav aria-label="Pages">' in broken.text
    assert "division" not in broken.text
    assert "This was not done" in words(post(client, "/rollback", to="none").text)
    inside = console_router(home.root, tokens=OPERATORS, prefix="/console", with_model=False)
    other = FastAPI()
    other.include_router(inside)
    assert "Token" in words(TestClient(other).get("/console/none").text)
    assert TestClient(other).get("/none").json() == {"detail": "Not Found"}


@pytest.mark.parametrize("name", ["two\nlines", " a  blank\t", "\r\n x"])
def test_whoever_has_white_space_in_the_id_is_forgotten(app: Any, home: Home, name: str) -> None:
    with Journal(home.journal) as journal:
        journal.append_many([(log(1, name), None)])
    client = enter(app)
    assert forgets(client, "user", name, "other").status_code == 422
    assert forgets(client, "user", name, " ".join(name.split())).status_code == 303
    with Journal(home.journal, readonly=True) as journal:
        assert journal.counts() == (0, 0)
    assert post(client, "/forget", kind="user", id="bob", typed="bob").status_code == 422
