"""Spans come from LangSmith's client by environment variables alone (docs/guides/unattended.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

APP = """
import json, sys, time
from langchain_core.tracers.langchain import wait_for_all_tracers
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
from langchain_uno import UNOChatModel

UNOChatModel(home=sys.argv[1], model=sys.argv[2], max_tokens=4).invoke("hello")
wait_for_all_tracers()
deadline = time.monotonic() + 30
while len(spans.get_finished_spans()) < 4 and time.monotonic() < deadline:
    time.sleep(0.1)
names = {one.context.span_id: one.name for one in spans.get_finished_spans()}
print(json.dumps({
    one.name: names.get(one.parent.span_id) if one.parent else None
    for one in spans.get_finished_spans()
}))
"""


def test_models_graphs_and_nodes_are_spans(
    tmp_path: Path, tiny_model_path: Path, repo: Path
) -> None:
    env = os.environ | {
        "PYTHONPATH": str(repo),
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_OTEL_ENABLED": "true",
        "LANGSMITH_OTEL_ONLY": "true",
        "LANGSMITH_API_KEY": "none",
        "LANGSMITH_ENDPOINT": "http://127.0.0.1:9",  # nobody is there
    }
    done = subprocess.run(
        [sys.executable, "-c", APP, str(tmp_path / "home"), str(tiny_model_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    parents = json.loads(done.stdout.splitlines()[-1])
    assert parents["UNOChatModel"] is None
    assert parents["respond"] == "UNOChatModel"
    assert parents["classify_cluster"] == parents["expert_generate"] == "respond"
