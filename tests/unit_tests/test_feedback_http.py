"""Feedback over HTTP: what a token allows, what it does not, and what nonsense gets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer
from langchain_core.language_models import FakeListChatModel

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.erasure import forget
from langchain_uno.errors import ConfigError, InputError
from langchain_uno.logs.exchange import export_lines, find
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.redaction import pseudonym
from langchain_uno.records import Feedback, utc_now
from langchain_uno.web.feedback import (
    ENV_SECRET,
    FeedbackRouter,
    FeedbackTokens,
    TokenError,
    feedback_app,
    feedback_router,
)

SECRET = "a secret of more than thirty-two characters"
RUN = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[UNOFeedbackHandler]:
    with UNOFeedbackHandler(home=tmp_path / "home") as made:
        yield made


def routed(handler: UNOFeedbackHandler, **how: Any) -> tuple[TestClient, FeedbackRouter]:
    router = feedback_router(handler, secret=SECRET, **how)
    app = FastAPI()
    app.include_router(router)
    return TestClient(app, raise_server_exceptions=False), router


def stored(handler: UNOFeedbackHandler) -> list[Feedback]:
    with Journal(handler.home.journal, readonly=True) as journal:
        return journal.feedback()


def send(client: TestClient, token: str, **body: Any) -> httpx.Response:
    return client.post("/feedback", json=body, headers={"Authorization": f"Bearer {token}"})


def test_a_thumb_lands_on_its_answer_and_changing_ones_mind_counts_once(
    handler: UNOFeedbackHandler,
) -> None:
    client, router = routed(handler)
    answer = FakeListChatModel(responses=["fine"]).invoke("hi", config={"callbacks": [handler]})
    token = router.tokens.sign(answer.id, user_id="u1")
    for score in (1, 0.0, True, 0):
        done = send(client, token, key="thumb", score=score)
        assert done.status_code == 200, done.text
    assert send(client, token, comment="use bullets").json()["key"] == "comment"
    [row] = [json.loads(line) for line in export_lines(handler.home)]
    assert [(f["key"], f.get("score"), f["user_id"]) for f in row["feedback"]] == [
        ("thumb", 0.0, "u1"),
        ("comment", None, "u1"),
    ]
    assert {f["source"] for f in row["feedback"]} == {"http"}
    assert router.counts == {"recorded": 5}
    assert client.get("/feedback/health").json() == {"status": "ok"}


def test_an_apps_own_look_at_the_body_keeps_it_from_nobody(handler: UNOFeedbackHandler) -> None:
    async def look(request: Request) -> None:
        await request.body()

    router = feedback_router(handler, secret=SECRET)
    app = FastAPI()
    app.include_router(router, dependencies=[Depends(look)])
    done = send(TestClient(app), router.tokens.sign(RUN), score=1)
    assert done.status_code == 200, done.text


def test_words_and_presses_stand_beside_each_other_and_both_are_taken_back(
    handler: UNOFeedbackHandler,
) -> None:
    client, router = routed(handler)
    answer = FakeListChatModel(responses=["fine"]).invoke("hello", config={"callbacks": [handler]})
    token = router.tokens.sign(answer.id, user_id="u1")

    def kept() -> set[tuple[Any, ...]]:
        return {(f.key, f.score, f.comment, f.correction) for f in stored(handler)}

    # Without a key the content tells the kind; words under the key of a press replace no press.
    send(client, token, score=1)
    send(client, token, comment="Shorter.")
    send(client, token, correction="Fine.")
    send(client, token, key="thumb", score=0)
    send(client, token, key="thumb", comment="Too long.")
    assert kept() == {
        ("score", 1.0, None, None),
        ("comment", None, "Shorter.", None),
        ("correction", None, None, "Fine."),
        ("thumb", 0.0, None, None),
        ("thumb", None, "Too long.", None),
    }
    other = FakeListChatModel(responses=["good"]).invoke(
        "hi there", config={"callbacks": [handler]}
    )
    token = router.tokens.sign(other.id, user_id="u1", keys=["thumb", "comment"])
    send(client, token, key="thumb", score=0)
    send(client, token, key="comment", comment="Number the steps.")
    assert find(handler.home, str(other.id))["verdict"]["usable"]
    send(client, token, key="comment")
    send(client, token, key="thumb")
    assert find(handler.home, str(other.id))["verdict"]["reason"] == "no_feedback"


def test_a_visitor_keeps_the_name_that_the_server_gave(handler: UNOFeedbackHandler) -> None:
    tokens = FeedbackTokens(SECRET)
    app = FastAPI()

    @app.get("/")
    def name(request: Request, response: Response) -> str:
        return tokens.visitor(request, response)

    browser, other = TestClient(app), TestClient(app, base_url="https://testserver")
    first = browser.get("/")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Secure" not in cookie
    again = browser.get("/")
    assert again.json() == first.json() and "set-cookie" not in again.headers
    second = other.get("/")
    assert second.json() != first.json() and "; Secure" in second.headers["set-cookie"]
    # Neither a name of one's own nor a token that the server signed for something else.
    [cookie_name] = browser.cookies
    for forged in (first.json(), f'"{first.json()}".x', tokens.sign(RUN), ""):
        got = TestClient(app, cookies={cookie_name: forged}).get("/")
        assert got.json().startswith("visitor-") and got.json() != first.json()
        assert "set-cookie" in got.headers


def test_a_beacon_and_several_people(handler: UNOFeedbackHandler) -> None:
    client, router = routed(handler)
    for user in ("a", "b"):
        body = {"token": router.tokens.sign(RUN, user_id=user), "key": "like", "score": 1}
        done = client.post(
            "/feedback", content=json.dumps(body), headers={"content-type": "text/plain;x=1"}
        )
        assert done.status_code == 200
    # A chosen feedback_id can't reach another's.
    ids = {
        send(client, router.tokens.sign(RUN, user_id=u), feedback_id="x", score=1).json()[
            "feedback_id"
        ]
        for u in ("a", "b")
    }
    assert len(ids) == 2
    assert sorted(f.user_id or "" for f in stored(handler)) == ["a", "a", "b", "b"]


def forged(**how: Any) -> str:
    serializer = URLSafeSerializer(how.pop("secret", "another secret of thirty-two letters"), **how)
    return str(serializer.dumps([RUN, "default", time.time() + 60, None, None]))


def bad_tokens() -> dict[str, str]:
    tokens = FeedbackTokens(SECRET)
    good = tokens.sign(RUN)
    payload, _, signature = good.rpartition(".")
    other = tokens.sign(OTHER)
    return {
        "empty": "",
        "garbage": "abc",
        "no signature": payload,
        "cut": good[:-2],
        "signature of another run": f"{payload}.{other.rpartition('.')[2]}",
        "changed payload": f"{other.rpartition('.')[0]}.{signature}",
        "another secret": forged(),
        "another salt": forged(secret=SECRET),
        "sha1": forged(secret=SECRET, salt="langchain-uno-feedback-1"),
        "expired": expired(tokens),
        "another namespace": tokens.sign(RUN, namespace="others"),
        "none algorithm": "eyJhbGciOiJub25lIn0.eyJydW4iOiIxIn0.",
        "very long": good + "A" * 5000,
        "not ascii": "ü" * 40,
        "not five claims": str(tokens._serializer.dumps([RUN])),
        "not a list": str(tokens._serializer.dumps(5)),
    }


def expired(tokens: FeedbackTokens) -> str:
    token = tokens.sign(RUN, ttl_s=0.001)
    time.sleep(0.01)
    return token


@pytest.mark.parametrize("attack", bad_tokens())
def test_no_other_token_writes(handler: UNOFeedbackHandler, attack: str) -> None:
    client, router = routed(handler)
    token = bad_tokens()[attack]
    done = client.post("/feedback", json={"token": token, "score": 1})
    assert done.status_code == 401, attack
    assert set(done.json()) == {"error", "detail"}
    assert stored(handler) == []
    with pytest.raises(TokenError):
        router.tokens.verify(token)


def test_a_token_is_for_its_run_and_its_keys(handler: UNOFeedbackHandler) -> None:
    client, router = routed(handler)
    token = router.tokens.sign(RUN, keys=["like", "dislike"])
    assert send(client, token, key="like", run_id=OTHER).status_code == 403
    assert send(client, token, key="comment", comment="x").status_code == 403
    assert send(client, token, comment="x").status_code == 403
    # Nothing said is no key that is forbidden.
    assert send(client, token).json()["error"] == "bad_value"
    assert stored(handler) == []
    assert send(client, token, key="like", run_id=f"lc_run--{RUN}-0").status_code == 200
    assert [f.run_id for f in stored(handler)] == [RUN]


def test_a_token_for_a_thumb_takes_no_words_and_no_other_s_feedback(
    handler: UNOFeedbackHandler,
) -> None:
    client, router = routed(handler)
    thumb, both = (router.tokens.sign(RUN, keys=k) for k in (["thumb"], ["thumb", "comment"]))
    assert (
        send(client, both, key="comment", comment="Too long.", feedback_id="f").status_code == 200
    )
    assert send(client, thumb, key="thumb", comment="Add a plug.").status_code == 403
    assert send(client, thumb, key="thumb", correction="Buy it.").status_code == 403
    # Neither by the other's name, nor by what a nameless comment is called inside.
    for name in ("f", "key:comment"):
        assert send(client, thumb, key="thumb", score=0, feedback_id=name).status_code == 200
    assert send(client, both, key="thumb", comment="Too long.", score=0).status_code == 200
    assert [f.comment for f in stored(handler) if f.key == "comment"] == ["Too long."]
    # A form's empty fields are no words.
    empty = {"comment": "", "correction": "  "}
    assert send(client, thumb, key="thumb", score=1, **empty).status_code == 200


# Whole numbers beyond floats (RFC 8259, 6), a byte-order mark, half a surrogate pair (RFC 8259,
# 8.2), digits beyond Python's limit (CVE-2020-10735).
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (422, b'{"key": "k", "value": 1' + b"0" * 400 + b"}"),
        (422, b'{"key": "k", "value": -9007199254740993}'),
        (422, b'{"score": 1' + b"0" * 400 + b"}"),
        (400, b'{"key": "k", "value": 1' + b"0" * 5000 + b"}"),
        (400, b'\xef\xbb\xbf{"score": 1}'),
        (400, '{"score": 1}'.encode("utf-16")),
        (400, b'{"a":' * 9000 + b"1" + b"}" * 9000),
        (400, b'{"comment": "\\ud800"}'),
        (422, b'{"score": 1, "user_id": "bob"}'),
    ],
)
def test_odd_bodies_are_refused(handler: UNOFeedbackHandler, status: int, body: bytes) -> None:
    client, router = routed(handler)
    headers = {"Authorization": f"Bearer {router.tokens.sign(RUN)}"}
    done = client.post(
        "/feedback", content=body, headers={**headers, "Content-Type": "application/json"}
    )
    assert done.status_code == status
    assert stored(handler) == []


def test_secrets_rotate_and_must_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = FeedbackTokens(SECRET), FeedbackTokens(["n" * 40, SECRET])
    assert new.verify(old.sign(RUN)).run_id == RUN
    with pytest.raises(TokenError):
        old.verify(new.sign(RUN))
    for short in ("short", ["x" * 40, "short"], ""):
        with pytest.raises(ConfigError, match="at least 32 characters"):
            FeedbackTokens(short)
    monkeypatch.delenv(ENV_SECRET, raising=False)
    with pytest.raises(ConfigError):
        FeedbackTokens()
    monkeypatch.setenv(ENV_SECRET, f"{SECRET}, {'n' * 40}")
    assert FeedbackTokens().verify(new.sign(RUN)).run_id == RUN
    for wrong in ("", None):
        with pytest.raises(InputError):
            old.sign(wrong)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"{", "application/json"),
        (400, b"\xff\xfe", "application/json"),
        (400, b"[1]", "application/json"),
        (400, b'"x"', "text/plain"),
        (422, b'{"score": NaN}', "application/json"),
        (400, b"[" * 30_000, "application/json"),
        (413, b'{"comment": "' + b"x" * 70_000 + b'"}', "application/json"),
        (415, b"score=1", "application/x-www-form-urlencoded"),
        (415, b"{}", "multipart/form-data"),
        (422, b'{"score": "secret words"}', "application/json"),
        (422, b'{"secret words": 1}', "application/json"),
        (422, b'{"score": 7}', "application/json"),
        (422, b'{"score": 1e999}', "application/json"),
        (422, b"{}", "application/json"),
        (422, b'{"comment": ["secret words"]}', "application/json"),
        (422, b'{"key": ""}', "application/json"),
        (422, b'{"key": "  ", "comment": " "}', "application/json"),
    ],
)
def test_nonsense_gets_a_sentence_and_nothing_is_written(
    handler: UNOFeedbackHandler, status: int, body: bytes, kind: str
) -> None:
    client, router = routed(handler)
    headers = {"Authorization": f"Bearer {router.tokens.sign(RUN)}", "content-type": kind}
    done = client.post("/feedback", content=body, headers=headers)
    assert done.status_code == status, done.text
    assert set(done.json()) == {"error", "detail"}
    assert "secret words" not in done.text
    assert stored(handler) == []


def test_a_body_without_length_is_cut_off(handler: UNOFeedbackHandler) -> None:
    client, router = routed(handler, max_body=1000)
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 100
            yield b"x" * 100

    headers = {"Authorization": f"Bearer {router.tokens.sign(RUN)}"}
    headers["content-type"] = "application/json"
    assert client.post("/feedback", content=endless(), headers=headers).status_code == 413


def test_too_fast_is_told_to_wait(handler: UNOFeedbackHandler) -> None:
    client, router = routed(handler, rate="3/minute", client_rate="5/minute")
    token = router.tokens.sign(RUN)
    assert [send(client, token, score=1).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert send(client, router.tokens.sign(OTHER), score=1).status_code == 200
    done = send(client, router.tokens.sign(OTHER), score=1)  # the address, whatever token
    assert done.status_code == 429
    assert int(done.headers["retry-after"]) >= 1
    with pytest.raises(ConfigError, match="30/minute"):
        routed(handler, rate="fast")


def test_a_journal_that_cannot_be_written_is_a_503(handler: UNOFeedbackHandler) -> None:
    client, router = routed(handler)
    handler._journal.close()
    done = send(client, router.tokens.sign(RUN), score=1)
    assert done.status_code == 503
    assert done.headers["retry-after"] == "5"


def test_only_named_pages_may_send(tmp_path: Path) -> None:
    app = feedback_app(tmp_path, cors_origins=["https://shop.example"], secret=SECRET)
    client = TestClient(app)
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    good = client.options("/feedback", headers={"Origin": "https://shop.example", **ask})
    assert good.headers["access-control-allow-origin"] == "https://shop.example"
    evil = client.options("/feedback", headers={"Origin": "https://evil.example", **ask})
    assert "access-control-allow-origin" not in evil.headers
    assert client.get("/docs").status_code == 404
    app.state.uno_handler.close()


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(["key", "score", "value", "comment", "correction", "feedback_id", "run_id"]),
    ANYTHING,
    max_size=5,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=FIELDS.map(lambda d: json.dumps(d).encode("utf-8", "surrogatepass")) | st.binary())
def test_no_body_breaks_it(handler: UNOFeedbackHandler, body: bytes) -> None:
    client, router = routed(handler, client_rate="100000/minute")
    headers = {"Authorization": f"Bearer {router.tokens.sign(RUN)}"}
    headers["content-type"] = "application/json"
    before = len(stored(handler))
    done = client.post("/feedback", content=body, headers=headers)
    assert done.status_code in (200, 400, 403, 422)
    if done.status_code != 200:
        assert len(stored(handler)) == before


def test_a_real_server_with_many_clients(tmp_path: Path) -> None:
    app = feedback_app(tmp_path, secret=SECRET, client_rate="100000/minute")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/feedback"
        tokens, codes = app.state.uno_router.tokens, []

        def press(n: int) -> None:
            with httpx.Client() as client:
                for i in range(20):
                    token = tokens.sign(f"run-{n}-{i}", user_id=f"u{n}")
                    body = {"key": "like", "score": 1}
                    headers = {"Authorization": f"Bearer {token}"}
                    codes.append(client.post(url, json=body, headers=headers).status_code)

        people = [threading.Thread(target=press, args=(n,)) for n in range(8)]
        for one in people:
            one.start()
        for one in people:
            one.join()
        server.should_exit = True
        thread.join()
    assert codes == [200] * 160
    assert len(stored(app.state.uno_handler)) == 160
    app.state.uno_handler.close()


def opened(tmp_path: Path) -> tuple[Any, int, uvicorn.Server, threading.Thread]:
    app = feedback_app(home=tmp_path / "home", secret=SECRET)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    return app, listening.getsockname()[1], server, thread


def test_slow_bodies_and_hang_ups_end_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("langchain_uno.web.bodies.BODY_S", 0.3)
    app, port, server, thread = opened(tmp_path)
    head = b"POST /feedback HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: 1000\r\n\r\n{"
    slow = socket.create_connection(("127.0.0.1", port))
    slow.sendall(head)
    gone = socket.create_connection(("127.0.0.1", port))
    gone.sendall(head)
    gone.close()
    slow.settimeout(10)
    said = b""
    while piece := slow.recv(1000):  # until the server closes the connection
        said += piece
    slow.close()
    assert said.startswith(b"HTTP/1.1 408")
    assert app.state.uno_router.counts == {"too_slow": 1, "hung_up": 1}
    server.should_exit = True
    thread.join(10)
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_a_page_is_told_what_became_of_a_press(handler: UNOFeedbackHandler) -> None:
    client, router = routed(handler)
    answer = FakeListChatModel(responses=["fine"]).invoke("hi", config={"callbacks": [handler]})
    token = router.tokens.sign(answer.id)
    first = send(client, token, key="thumb", score=1).json()
    assert first["status"] == "recorded"
    [stored_one] = stored(handler)
    ahead = stored_one.model_copy(update={"created_at": utc_now() + timedelta(hours=1)})
    with Journal(handler.home.journal) as other_host:
        other_host.append_feedback(ahead)
    assert send(client, token, key="thumb", score=0).json() == {**first, "status": "outdated"}
    assert [f.score for f in stored(handler)] == [1.0]
    forget(handler.home, run_ids=[str(answer.id)])
    gone = send(client, token, key="thumb", score=0)
    assert (gone.status_code, gone.json()["error"]) == (410, "forgotten")
    assert router.counts == {"recorded": 1, "outdated": 1, "forgotten": 1}


def test_a_token_takes_the_ids_that_people_have(handler: UNOFeedbackHandler) -> None:
    """Numbers and UUIDs of databases, addresses; the message itself."""
    client, router = routed(handler)
    answer = FakeListChatModel(responses=["fine"]).invoke("hi", config={"callbacks": [handler]})
    for user in (7, UUID(int=7), "Ada@Example.org"):
        token = router.tokens.sign(answer, user_id=user)
        assert send(client, token, key="thumb", score=1).status_code == 200
    kept = [f.user_id for f in stored(handler)]
    assert kept == ["7", str(UUID(int=7)), pseudonym("ada@example.org")]
    with pytest.raises(InputError, match="user id"):
        router.tokens.sign(answer, user_id="u" * 201)
    with pytest.raises(InputError, match="run id"):
        router.tokens.sign(f"lc_run--{RUN}-1")  # of n > 1
    for keys in ("thumb", [1], ["thumb", None]):
        with pytest.raises(InputError, match="keys as a list"):
            router.tokens.sign(answer, keys=keys)  # type: ignore[arg-type]


def test_a_value_alone_is_told_what_it_lacks(handler: UNOFeedbackHandler) -> None:
    client, router = routed(handler)
    refused = send(client, router.tokens.sign(RUN), value="up")
    assert refused.status_code == 422
    assert "a value (a finite scalar) stands beside a key" in refused.json()["detail"]
