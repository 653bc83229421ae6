"""A real vLLM server on the CPU, in a virtual environment of its own (``make test-vllm``)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from langchain_uno.models.loading import bundled_path, load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.openai_compatible import OpenAIEngine
from langchain_uno.testing import make_tiny_adapter

SLOTS = 2
"""``--max-loras``: few, so that all are in use at once."""

COMPACT = (
    "--structured-outputs-config",
    '{"backend": "xgrammar", "disable_any_whitespace": true}',
)
"""Without it a small model may write blanks for ever inside JSON."""


class Server:
    """vLLM with the bundled model; it can be killed and started again on the same port."""

    def __init__(self, python: str, folder: Path, *more: str) -> None:
        self.python, self.folder, self.more = python, folder, more
        self.adapters = folder / "adapters"
        self.adapters.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {
            **os.environ,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_PLUGINS": "lora_filesystem_resolver",
            "VLLM_LORA_RESOLVER_CACHE_DIR": str(self.adapters),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        words = (
            "-m vllm.entrypoints.openai.api_server --served-model-name bundled --enable-lora "
            # Its CPU build dies where it cuts the prompt of a request with a seed into chunks.
            "--no-enable-chunked-prefill "
            f"--max-lora-rank 16 --max-loras {SLOTS} --max-cpu-loras 16 --enforce-eager --dtype "
            "float32 --max-model-len 1024 --enable-auto-tool-choice --tool-call-parser hermes "
            f"--host 127.0.0.1 --port {self.port}"
        )
        command = [self.python, *words.split(), "--model", str(bundled_path()), *self.more]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=env, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 240
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/models").status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.5)
        pytest.fail("vLLM did not start:\n" + (self.folder / "log").read_text()[-4000:])

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    python = os.environ.get("VLLM_PYTHON")
    if not python:
        pytest.fail("VLLM_PYTHON names no interpreter with vLLM: run `make test-vllm`.")
    made = Server(python, tmp_path_factory.mktemp("vllm"), *COMPACT)
    made.start()
    yield made
    made.kill()


@pytest.fixture(scope="session")
def remote(server: Server) -> Iterator[OpenAIEngine]:
    engine = load_engine(server.url, adapter_dir=server.adapters)
    assert isinstance(engine, OpenAIEngine)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def local() -> Iterator[LocalEngine]:
    engine = load_engine()
    assert isinstance(engine, LocalEngine)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def adapter_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("lora")
    return {f"a{i}": make_tiny_adapter(top / f"a{i}", bundled_path(), seed=i) for i in range(4)}
