"""The files of examples/deploy: their commands are ours, their forms are valid, and they run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from langchain_uno import errors
from langchain_uno.cli.command import app

REPO = Path(__file__).resolve().parents[2]
DEPLOY = REPO / "examples" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CRONJOB: dict[str, Any] = yaml.safe_load((DEPLOY / "cronjob.yaml").read_text())
JOB = CRONJOB["spec"]["jobTemplate"]["spec"]
BIN = Path(sys.executable).parent


def refreshes() -> dict[str, list[str]]:
    """The words of every command that refreshes, by file."""
    cron = (DEPLOY / "crontab").read_text().splitlines()[-1].partition(" >>")[0]
    unit = (DEPLOY / "langchain-uno-refresh.service").read_text()
    [start] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    return {
        "crontab": cron.split(),
        "service": start.split(),
        "cronjob.yaml": JOB["template"]["spec"]["containers"][0]["command"],
        "compose.yaml": COMPOSE["services"]["refresh"]["command"],
    }


@pytest.mark.parametrize("name", ["crontab", "service", "cronjob.yaml", "compose.yaml"])
def test_every_command_is_one_of_ours(name: str) -> None:
    words = refreshes()[name]
    words = words[words.index("langchain-uno") + 1 :]
    command = get_command(app).commands["train"]  # type: ignore[attr-defined]
    assert words[0] == "train"
    context = command.make_context("train", list(words[1:]), resilient_parsing=True)
    assert context.params["as_json"] and context.params["max_minutes"] == 240
    assert not context.args


def test_exit_codes_that_files_name_are_those_of_errors() -> None:
    codes = {one.exit_code for one in vars(errors).values() if isinstance(one, type)
             and issubclass(one, errors.UNOError)}  # fmt: skip
    [rule] = JOB["podFailurePolicy"]["rules"]
    assert set(rule["onExitCodes"]["values"]) <= codes
    unit = (DEPLOY / "langchain-uno-refresh.service").read_text()
    [fine] = re.findall(r"^SuccessExitStatus=(.*)$", unit, re.MULTILINE)
    assert set(map(int, fine.split())) == {
        errors.EmptyLogError.exit_code,
        errors.PausedError.exit_code,
    }


def test_what_cron_and_kubernetes_must_agree_on() -> None:
    assert CRONJOB["spec"]["concurrencyPolicy"] == "Forbid"
    assert JOB["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy needs it
    mounted = {m["name"] for m in JOB["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounted == {v["name"] for v in JOB["template"]["spec"]["volumes"]}
    for service in COMPOSE["services"].values():
        assert {v.split(":")[0] for v in service["volumes"]} <= set(COMPOSE["volumes"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("kind", ["service", "timer"])
def test_systemd_takes_the_units(kind: str) -> None:
    path = DEPLOY / f"langchain-uno-refresh.{kind}"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True
    )
    about = [line for line in done.stderr.splitlines() if "langchain-uno" in line]
    assert about == []


@contextmanager
def running(words: list[str], env: dict[str, str], url: str) -> Iterator[None]:
    """Run a service until the block ends."""
    process = subprocess.Popen(words, env=env, cwd=REPO, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            assert process.poll() is None, f"{words} ended by itself"
            try:
                with urllib.request.urlopen(url, timeout=5):
                    break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def on_loopback(service: str, port: int, home: Path, data: Path) -> list[str]:
    """The words of a service's command, with this machine's places in place of a container's."""
    words = [str(word) for word in COMPOSE["services"][service]["command"]]
    here = {"0.0.0.0": "127.0.0.1", "8000": str(port), "8080": str(port), "/data": str(data)}
    here |= {"/home-uno": str(home), "python": sys.executable}
    words = [here.get(word, word) for word in words]
    own = BIN / words[0]
    return [str(own) if own.exists() else words[0], *words[1:]]


@pytest.mark.slow
def test_the_services_of_the_compose_file_run_by_the_same_commands(tmp_path: Path) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    ports = {"chroma": free_port(), "app": free_port()}
    env = os.environ | {
        "PYTHONPATH": str(REPO),
        "LANGCHAIN_UNO_HOME": str(home),
        "LANGCHAIN_UNO_CHROMA": f"http://127.0.0.1:{ports['chroma']}",
        "LANGCHAIN_UNO_FEEDBACK_SECRET": "a secret of thirty-two characters",
        "ANONYMIZED_TELEMETRY": "false",
    }

    def words(service: str) -> list[str]:
        return on_loopback(service, ports.get(service, 0), home, data)

    base = f"http://127.0.0.1:{ports['app']}"

    def post(path: str, body: dict[str, Any], **headers: str) -> str:
        request = urllib.request.Request(
            f"{base}{path}",
            json.dumps(body).encode(),
            {"content-type": "application/json", **headers},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return str(answer.read().decode())

    heartbeat = f"http://127.0.0.1:{ports['chroma']}/api/v2/heartbeat"
    with running(words("chroma"), env, heartbeat):
        with running(words("app"), env, f"{base}/feedback/health"):
            for text in ("Tell me about the ferry Selma.", "Tell me about the train Anna."):
                last = post("/ask", {"text": text}).splitlines()[-1]
                bearer = {"authorization": f"Bearer {json.loads(last)['token']}"}
                told = post("/feedback", {"comment": "Use bullet points, please."}, **bearer)
                assert json.loads(told)["status"] == "recorded"
        command = words("refresh")
        done = subprocess.run(command, env=env, cwd=REPO, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        result = json.loads(done.stdout)
        assert result["interactions"] == 2 and result["release"]
        again = subprocess.run(command, env=env, cwd=REPO, capture_output=True, text=True)
        assert json.loads(again.stdout)["unchanged"]
    assert "langchain_uno_refresh_exit_code" in (home / "metrics.prom").read_text()
    shown = {p.name for p in (home / "chroma").iterdir()} if (home / "chroma").is_dir() else set()
    assert "chroma.sqlite3" not in shown  # the server has the index
