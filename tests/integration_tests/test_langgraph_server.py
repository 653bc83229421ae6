"""``langgraph dev`` with the repository's ``langgraph.json``, driven by the SDK's client."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client

from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines

ROOT = Path(__file__).parents[2]
AUTH = """
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def who(authorization: str | None) -> str:
    return (authorization or "Bearer nobody").removeprefix("Bearer ")
"""
ASKED = "When does the ferry to Rost leave? It says: 9:10, quay 4."


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served") / "home"


@pytest.fixture(scope="module")
def url(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Its own folder: the server keeps its threads in one below where it runs.
    folder = tmp_path_factory.mktemp("server")
    settings = json.loads((ROOT / "langgraph.json").read_text())
    settings["dependencies"] = [str(ROOT)]
    (folder / "auth.py").write_text(AUTH)
    settings["auth"] = {"path": "./auth.py:auth"}
    (folder / "langgraph.json").write_text(json.dumps(settings))
    env = {
        **os.environ,
        "LANGCHAIN_UNO_HOME": str(home),
        "LANGCHAIN_UNO_FEEDBACK_SECRET": "s" * 40,
        "LANGSMITH_TRACING": "false",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    }
    command = [str(Path(sys.executable).with_name("langgraph")), "dev", "--no-browser"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--no-reload", "--port", str(port)],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for _ in range(480):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/ok").status_code == 200:
                    break
            except httpx.HTTPError:
                asyncio.run(asyncio.sleep(0.5))
        else:
            pytest.fail((folder / "log").read_text()[-3000:])
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def _kept(home: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in export_lines(Home.locate(home))]
    return {row["run_id"]: row for row in rows}


def _run_of(message: dict[str, Any]) -> str:
    return str(message["id"]).removeprefix("lc_run--")[:36]


async def test_invoke_stream_threads_and_feedback(url: str, home: Path) -> None:
    client = get_client(url=url, headers={"Authorization": "Bearer bob"})
    names = {a["graph_id"] for a in await client.assistants.search()}
    assert names == {"respond", "refresh"}

    # a run without a thread
    ask = {"messages": [{"role": "user", "content": ASKED}]}
    ada = get_client(url=url, headers={"Authorization": "Bearer ada"})
    alone: Any = await ada.runs.wait(None, "respond", input=ask)
    assert alone["messages"][-1]["type"] == "ai" and alone["messages"][-1]["content"]

    # a thread, its second turn streamed token by token
    thread = (await client.threads.create())["thread_id"]
    # whom the server let in says who asks, and not what the client says
    first: Any = await client.runs.wait(
        thread, "respond", input=ask, context={"user_id": "eve"}, metadata={"user_id": "eve"}
    )
    answer = first["messages"][-1]
    assert answer["response_metadata"]["route"] == "base"
    parts = []
    async for event in client.runs.stream(
        thread,
        "respond",
        input={"messages": [{"role": "user", "content": "Please use bullet points."}]},
        context={"max_tokens": 50},
        stream_mode="messages-tuple",
    ):
        if event.event == "messages":
            parts.append(event.data[0]["content"])
    assert len([p for p in parts if p]) > 1, "more than one piece"
    state: Any = await client.threads.get_state(thread)
    assert [m["type"] for m in state["values"]["messages"]] == ["human", "ai", "human", "ai"]
    assert state["values"]["messages"][-1]["content"] == "".join(parts)

    # a thumb from a browser, by the token that came with the answer
    token = answer["response_metadata"]["feedback_token"]
    thumb = {"key": "thumb", "score": 0.0, "comment": "bullet points!"}
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url) as browser:
        sent = await browser.post("/feedback", json=thumb, headers=headers)
        assert sent.status_code == 200
        forged = await browser.post(
            "/feedback", json=thumb, headers={"Authorization": f"Bearer {token[:-4]}AAAA"}
        )
        assert forged.status_code == 401

    kept = await asyncio.to_thread(_kept, home)
    assert len(kept) == 3, "one interaction a model run, none lost to the server's event loop"
    rated = kept[_run_of(answer)]
    assert rated["user_id"] == "bob" and rated["thread_id"] == thread
    said = {f["key"]: f for f in rated["feedback"]}
    assert said["thumb"]["comment"] == "bullet points!" and said["thumb"]["user_id"] == "bob"
    assert said["follow_up"]["comment"] == "Please use bullet points."
    assert kept[_run_of(alone["messages"][-1])]["user_id"] == "ada"


async def test_what_a_run_may_choose_is_checked(url: str) -> None:
    client = get_client(url=url)
    ask = {"messages": [{"role": "user", "content": ASKED}]}
    short: Any = await client.runs.wait(None, "respond", input=ask, context={"max_tokens": 2})
    assert short["messages"][-1]["usage_metadata"]["output_tokens"] == 2
    with pytest.raises(Exception, match="ValidationError"):
        await client.runs.wait(None, "respond", input=ask, context={"max_tokens": -1})


async def test_a_refresh_on_the_server_is_served_by_it(url: str, home: Path) -> None:
    client = get_client(url=url)
    done: Any = await client.runs.wait(None, "refresh", input={})
    assert (home / "releases" / done["release"] / "manifest.json").is_file()
    ask = {"messages": [{"role": "user", "content": ASKED}]}
    answer: Any = await client.runs.wait(None, "respond", input=ask)
    assert answer["messages"][-1]["response_metadata"]["release"] == done["release"]
    again: Any = await client.runs.wait(None, "refresh", input={})
    assert again["release"] != done["release"] or again["unchanged"]
