"""The serving benchmark at a twentieth: threads and tasks, releases switched under them."""

from __future__ import annotations

import pytest
import torch

from lab.benchmarks import bench_serving


def test_load_with_switches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A test has one thread: two wait for each other, and longest where a machine is loaded.
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    bench_serving.load(requests=200, switches=4, tokens=12)
    said = capsys.readouterr().out
    assert "200 answers" in said and "0 errors, 0 wrong" in said
