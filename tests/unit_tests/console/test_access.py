"""Who is let in, who may do what, and whose forms are believed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from langchain_uno.cli.command import app as cli
from langchain_uno.errors import ConfigError
from langchain_uno.home import Home
from langchain_uno.releases.history import held, read_history
from langchain_uno.releases.traffic import read_traffic
from langchain_uno.web.console import console_app, console_router
from langchain_uno.web.console.access import read_tokens
from tests.unit_tests.console.parts import OPERATORS, TOKENS, csrf, enter, post, words

LOOKS = ["/", "/clusters", "/clusters/c0", "/review", "/releases", "/releases/x", "/report/x",
         "/diff", "/try", "/people", "/forget?kind=user&id=u", "/health"]  # fmt: skip
ACTS = ["/releases/x/promote", "/rollback", "/hold", "/hold/end", "/try/ask", "/review",
        "/releases/x/canary", "/canary/watch", "/canary/stop", "/try/rate",
        "/try/new", "/forget", "/leave"]  # fmt: skip


def current(home: Home) -> str | None:
    traffic = read_traffic(home)
    return traffic.current.release if traffic and traffic.current else None


def test_every_page_and_action_is_named_here(home: Home) -> None:
    router: Any = console_router(home.root, tokens=OPERATORS, with_model=False)
    named = {path.partition("?")[0] for path in (*LOOKS, *ACTS)}
    named = {p.replace("/x", "/{release}").replace("/c0", "/{cluster}") for p in named}
    assert {r.path for r in router.routes} == named | {"/enter", "/static/{name}"}


@pytest.mark.parametrize("path", LOOKS)
def test_no_page_without_a_token(app: Any, make: Callable[..., str], path: str) -> None:
    release = make()
    found = TestClient(app).get(path)
    assert found.status_code == 401
    assert "Token" in words(found.text) and release not in found.text


@pytest.mark.parametrize("path", ACTS)
def test_no_action_without_a_token(app: Any, home: Home, path: str) -> None:
    assert TestClient(app).post(path, data={"csrf": "x"}).status_code == 401
    assert held(home) is None


def test_a_token_opens_a_session_that_no_script_reads(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = TestClient(app, follow_redirects=False)
    assert client.get("/enter", params={"token": "x" * 24}).status_code == 401
    assert client.post("/enter", data={"token": ""}).status_code == 401
    found = client.post("/enter", data={"token": TOKENS["read"]})
    assert (found.status_code, found.headers["location"]) == (303, "/")
    cookie = found.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie
    assert TOKENS["read"] not in found.headers["set-cookie"]
    assert client.get("/").status_code == 200
    assert post(client, "/leave").status_code == 303
    told = [one.getMessage() for one in caplog.records if "console" in one.name]
    assert told == [
        *["The console refused a token that nobody has."] * 2,
        "reader entered the console.",
        "reader left the console.",
    ]
    assert client.get("/").status_code == 401


def test_a_cookie_that_was_changed_opens_nothing(app: Any) -> None:
    client = enter(app, "read")
    ((name, value),) = client.cookies.items()
    client.cookies.clear()
    client.cookies.set(name, value[:-2] + ("AA" if value[-2:] != "AA" else "BB"))
    assert client.get("/").status_code == 401


def test_a_session_ends_with_the_tokens_and_after_twelve_hours(
    app: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = enter(app)
    ((name, value),) = client.cookies.items()
    other = console_app(home.root, tokens=OPERATORS + "x", with_model=False)
    assert TestClient(other, cookies={name: value}).get("/").status_code == 401
    again = console_app(home.root, tokens=OPERATORS, with_model=False)
    assert TestClient(again, cookies={name: value}).get("/").status_code == 200
    later = time.time() + 12 * 3600 + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert client.get("/").status_code == 401


@pytest.mark.parametrize("role", ["read", "review"])
def test_a_role_may_not_do_what_a_higher_one_may(
    app: Any, home: Home, make: Callable[..., str], role: str
) -> None:
    first, second = make(), make()
    client = enter(app, role)
    for path in (f"/releases/{first}/promote", "/rollback", "/hold", "/hold/end", "/forget",
                 f"/releases/{first}/canary", "/canary/watch", "/canary/stop"):  # fmt: skip
        assert post(client, path, kind="user", id="u", typed="u").status_code == 403, path
    assert client.get("/forget?kind=user&id=u").status_code == 403
    assert (current(home), held(home)) == (second, None)
    # "review" may ask: there is no model here; "read" may not.
    assert post(client, "/try/ask", text="x").status_code == (404 if role == "review" else 403)
    shown = client.get("/releases").text
    assert "Roll back" not in shown


def test_actions_stand_in_the_history_under_the_operators_name(
    app: Any, home: Home, make: Callable[..., str]
) -> None:
    first, second = make(), make()
    client = enter(app)
    assert post(client, f"/releases/{first}/promote", why="better").status_code == 303
    assert current(home) == first
    assert post(client, "/rollback", to=second, why="worse").status_code == 303
    assert current(home) == second
    post(client, "/rollback", why="complaints")
    assert current(home) == first
    seen = words(client.get("/").text)
    assert f"Rolled back from {second} by releaseer" in seen
    assert "until new logs, decisions or settings come. complaints" in seen
    post(client, "/rollback", to="base")
    assert current(home) is None
    post(client, "/hold", why="audit")
    assert (held(home) or {})["by"] == "releaseer"
    post(client, "/hold/end")
    assert held(home) is None
    lines = [(e["what"], e["release"], e["by"], e["why"]) for e in read_history(home)][2:]
    assert lines == [
        ("promote", first, "releaseer", "better"),
        ("rollback", second, "releaseer", "worse"),
        ("rollback", first, "releaseer", "complaints"),
        ("retire", None, "releaseer", ""),
        ("hold", None, "releaseer", "audit"),
        ("let go", None, "releaseer", ""),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://console.test:81"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_post_from_another_site_is_refused(app: Any, home: Home, headers: dict[str, str]) -> None:
    client = enter(app)
    found = client.post("/hold", data={"csrf": csrf(client)}, headers=headers)
    assert (found.status_code, held(home)) == (403, None)
    token = {"token": TOKENS["release"]}
    assert client.post("/enter", data=token, headers=headers).status_code == 403
    own = {"Origin": "http://console.test", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/hold", data={"csrf": csrf(client)}, headers=own).status_code == 303


@pytest.mark.parametrize("given", [None, "", "0" * 64, "é"], ids=str)
def test_a_form_without_the_sessions_word_is_refused(
    app: Any, home: Home, given: str | None
) -> None:
    client = enter(app)
    data = {} if given is None else {"csrf": given}
    assert client.post("/hold", data=data or {"why": "x"}).status_code == 403
    other = csrf(enter(app))  # another session of the same person
    assert client.post("/hold", data={"csrf": other}).status_code == 403
    assert held(home) is None


def test_what_is_no_form_or_too_large_is_refused(app: Any, home: Home) -> None:
    client = enter(app)
    assert client.post("/hold", json={"csrf": csrf(client)}).status_code == 415
    assert client.post("/hold", files={"csrf": b"x"}).status_code == 415
    large = {"csrf": csrf(client), "why": "x" * (2 << 20)}
    assert client.post("/hold", data=large).status_code == 413
    many = {"csrf": csrf(client), **{f"f{n}": "" for n in range(100)}}
    assert client.post("/hold", data=many).status_code == 400
    assert held(home) is None


@pytest.mark.parametrize("path", ["/", "/enter", "/static/console.css", "/static/none", "/people"])
def test_every_response_is_sealed(app: Any, path: str) -> None:
    headers = enter(app).get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    if not path.startswith("/static/c"):
        assert headers["cache-control"] == "no-store"


def test_a_message_is_believed_by_its_own_session_alone(app: Any) -> None:
    client = enter(app)
    where = post(client, "/hold").headers["location"]
    assert "Held: a person promotes" in client.get(where).text
    assert "Held: a person promotes" not in enter(app).get(where).text
    assert 'role="status"' not in client.get("/releases?said=Approve+this").text


def test_it_works_below_a_prefix_and_in_another_app(home: Home, make: Callable[..., str]) -> None:
    make()
    inside, mounted = FastAPI(), FastAPI()
    inside.include_router(
        console_router(home.root, tokens=OPERATORS, prefix="/console", with_model=False)
    )
    mounted.mount("/console", console_app(home.root, tokens=OPERATORS, with_model=False))
    for app in (inside, mounted):
        client = TestClient(app, follow_redirects=False)
        found = client.get("/console/enter", params={"token": TOKENS["release"]})
        assert found.headers["location"] == "/console/"
        assert "path=/console;" in found.headers["set-cookie"].lower()
        page = client.get("/console/releases")
        assert page.status_code == 200
        assert 'href="/console/clusters"' in page.text and 'href="/clusters"' not in page.text
        assert client.get("/console/static/htmx.min.js").status_code == 200


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ("", "needs a token"),
        ("ann", "name:role:token"),
        ("ann:boss:" + "a" * 24, "name:role:token"),
        (":read:" + "a" * 24, "name:role:token"),
        ("ann:read:short", "20 characters"),
        ("ann:read:" + "é" * 24, "ASCII"),
        (f"ann:read:{'a' * 24},ann:review:{'b' * 24}", "name stands twice"),
        (f"ann:read:{'a' * 24},bob:review:{'a' * 24}", "token stands twice"),
    ],
)
def test_tokens_that_cannot_be_used_are_refused(home: Home, tokens: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        console_app(home.root, tokens=tokens, with_model=False)
    assert "a" * 24 not in str(raised.value)


def test_a_token_may_have_colons_and_is_not_shown() -> None:
    (one,) = read_tokens(" ann:release:aaaaaaaaaa:bbbbbbbbbbb ")
    assert (one.name, one.role, one.token) == ("ann", "release", "aaaaaaaaaa:bbbbbbbbbbb")
    assert one.token not in repr(one)


@pytest.mark.parametrize("tokens", [OPERATORS, ""], ids=["tokens", "none"])
def test_the_langgraph_servers_app_has_it_where_tokens_are_set(
    home: Home, monkeypatch: pytest.MonkeyPatch, tokens: str
) -> None:
    monkeypatch.setenv("LANGCHAIN_UNO_HOME", str(home.root))
    monkeypatch.setenv("LANGCHAIN_UNO_FEEDBACK_SECRET", "s" * 32)
    monkeypatch.setenv("LANGCHAIN_UNO_CONSOLE_TOKENS", tokens)
    from langchain_uno.web import langgraph

    client = TestClient(langgraph.app, follow_redirects=False)
    root = client.get("/console")
    assert (root.status_code, root.headers.get("location")) == (
        (307, "/console/") if tokens else (404, None)
    )
    assert client.get("/console/").status_code == (401 if tokens else 404)
    assert client.get("/feedback/health").status_code == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "say who may do what"),
        (["--host", "no-such-host.invalid"], "can't be listened on"),
    ],
)
def test_the_command_does_not_open_to_others_without_tokens(
    home: Home, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    tokens = OPERATORS if "invalid" in words[1] else ""
    monkeypatch.setenv("LANGCHAIN_UNO_CONSOLE_TOKENS", tokens)
    found = CliRunner().invoke(cli, ["console", "--home", str(home.root), "--no-model", *words])
    assert (found.exit_code, said in " ".join(found.output.split())) == (2, True)
    missing = CliRunner().invoke(cli, ["console", "--home", str(home.root / "none")])
    assert missing.exit_code == 3


def test_after_the_token_comes_the_page_that_was_asked_for(app: Any) -> None:
    client = TestClient(app, base_url="http://console.test", follow_redirects=False)
    token = {"token": TOKENS["read"]}
    page = client.get("/clusters?q=a&page=2").text
    assert 'name="next" value="/clusters?q=a&amp;page=2"' in page
    wrong = client.post("/enter", data={"token": "x", "next": "/clusters?q=a"})
    assert 'name="next" value="/clusters?q=a"' in wrong.text
    done = client.post("/enter", data={**token, "next": "/clusters?q=a"})
    assert done.headers["location"] == "/clusters?q=a"
    for bad in ("//evil.test/", "/\\evil.test", "http://evil.test/", "clusters", "/a\nb", ""):
        done = client.post("/enter", data={**token, "next": bad})
        assert done.headers["location"] == "/", bad


@pytest.mark.parametrize("prefix", ["console", "/console/", "/console"])
def test_a_prefix_may_be_written_in_any_way(home: Home, prefix: str) -> None:
    app = FastAPI()
    app.include_router(console_router(home.root, tokens=OPERATORS, prefix=prefix, with_model=False))
    client = TestClient(app, follow_redirects=False)
    assert client.get("/console").headers["location"] == "/console/"
    assert 'action="/console/enter"' in client.get("/console/").text


def test_tokens_of_blanks_alone_are_none(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = read_tokens("ann : release : aaaaaaaaaabbbbbbbbbbb , ")
    assert (one.name, one.role, one.token) == ("ann", "release", "aaaaaaaaaabbbbbbbbbbb")
    monkeypatch.setenv("LANGCHAIN_UNO_CONSOLE_TOKENS", " , ")
    monkeypatch.setattr("uvicorn.Server.run", lambda *args, **more: None)
    words = ["console", "--home", str(home.root), "--no-model", "--port", "0"]
    assert "/enter?token=" in CliRunner().invoke(cli, words).output


@pytest.mark.parametrize("path", ["/enter", "/rollback"])
async def test_slow_forms_and_hang_ups_end_quietly(
    app: Any, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody needs a token to send half a form."""
    monkeypatch.setattr("langchain_uno.web.bodies.BODY_S", 0.05)
    cookie = "; ".join(f"{k}={v}" for k, v in enter(app).cookies.items())
    kind = b"application/x-www-form-urlencoded"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", kind), (b"cookie", cookie.encode()), (b"host", b"x")],
    }
    said: list[Any] = []

    async def hung_up() -> Any:
        return {"type": "http.disconnect"}

    async def slow() -> Any:
        await asyncio.sleep(5)

    async def send(message: Any) -> None:
        said.append(message)

    for receive in (hung_up, slow):
        await app(scope, receive, send)
    assert [m["status"] for m in said if "status" in m] == [400, 408]
    assert not [r for r in caplog.records if r.levelname == "ERROR"]
