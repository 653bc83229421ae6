"""A refresh whose clusters are tried on a Ray cluster of two nodes, as real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from langchain_uno.errors import ConfigError
from langchain_uno.home import Home
from langchain_uno.learning.work import RefreshResult
from langchain_uno.learning.workers import LoadModels, RayWorkers
from langchain_uno.models.protocols import Embedder, Engine
from langchain_uno.records import Feedback
from langchain_uno.trainers import common
from tests.unit_tests.graphs.refresh_parts import logs, make_home, refresh, tiny_engine
from tests.unit_tests.graphs.test_refresh_faults import TINY, content, copy_of, judge
from tests.unit_tests.learning.toy_language import ToyEmbedder, ToyEngine

ray = pytest.importorskip("ray")

Fault = Literal["killed once", "killed always", "raises"]


def load(model: Path) -> tuple[Engine, Embedder, Engine]:
    return tiny_engine(model), ToyEmbedder(), ToyEngine(judge)


def load_faulty(model: Path, marks: Path, fault: Fault) -> tuple[Engine, Embedder, Engine]:
    """Load models into a worker whose trainings of the first cluster end after a step."""
    step = common.Watcher.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        step(self, args, state, control, **more)
        first = "c0" in Path(args.output_dir).parts
        if not first or (fault == "killed once" and marks.exists()):
            return
        with marks.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if fault == "raises":
            raise RuntimeError("a user's words")
        os.kill(os.getpid(), signal.SIGKILL)

    common.Watcher.on_step_end = on_step_end  # type: ignore[method-assign]
    return load(model)


@pytest.fixture(scope="module")
def nodes() -> Iterator[None]:
    """Two nodes with a CPU each; this process has joined them."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with logs and a key, so that copies name their logs alike."""
    from langchain_uno.releases.manifest import lineage_key

    interactions = logs(16)
    edit = Feedback(run_id="run-000", correction="answer 0 [sing] and more", user_id="user-0")
    interactions[0].feedback.append(edit)
    home = make_home(tmp_path_factory.mktemp("start") / "home", interactions)
    lineage_key(home)
    return home.root


@pytest.fixture(scope="module")
def plain(engine: Engine, start: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The release of the run without Ray."""
    home = copy_of(start, tmp_path_factory.mktemp("plain") / "home")
    run(home, engine)
    made = content(home)
    assert made["adapters"]
    return made


def run(home: Home, engine: Engine, loads: LoadModels | None = None) -> RefreshResult:
    spread = RayWorkers("auto", loads) if loads else None
    return refresh(home, engine, TINY, teacher=ToyEngine(judge), spread=spread)


def test_an_address_where_nobody_answers_is_told_before_anything_is_done() -> None:
    with pytest.raises(ConfigError, match="No Ray cluster answers at '127.0.0.1:1'"):
        RayWorkers("127.0.0.1:1", partial(load, Path("model")))
    with pytest.raises(ConfigError, match="HOST:PORT"):
        RayWorkers("somewhere", partial(load, Path("model")))


@pytest.mark.slow
def test_two_nodes_give_the_release_of_the_plain_run(
    nodes: None, engine: Engine, start: Path, plain: dict[str, Any], tiny_model_path: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from langchain_uno.learning import train

    def here(*_: Any) -> None:
        raise AssertionError("a cluster was tried in the command's own process")

    monkeypatch.setattr(train, "_decide", here)  # workers have a module of their own
    home = copy_of(start, tmp_path / "home")
    result = run(home, engine, partial(load, tiny_model_path))
    assert content(home) == plain
    assert not [note for note in result.notes if "Ray" in note]


@pytest.mark.slow
def test_a_worker_that_is_killed_in_training_is_started_again(
    nodes: None, engine: Engine, start: Path, plain: dict[str, Any], tiny_model_path: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    home, marks = copy_of(start, tmp_path / "home"), tmp_path / "marks"
    result = run(home, engine, partial(load_faulty, tiny_model_path, marks, "killed once"))
    assert len(marks.read_text().split()) == 1
    assert content(home) == plain
    assert not [note for note in result.notes if "Ray" in note]


@pytest.mark.slow
def test_a_cluster_whose_workers_die_is_named_and_tried_here(
    nodes: None, engine: Engine, start: Path, plain: dict[str, Any], tiny_model_path: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    home, marks = copy_of(start, tmp_path / "home"), tmp_path / "marks"
    result = run(home, engine, partial(load_faulty, tiny_model_path, marks, "killed always"))
    assert len(marks.read_text().split()) == 4
    assert content(home) == plain
    [told] = [note for note in result.notes if "Ray" in note]
    assert told.startswith("c0: its Ray worker failed")


@pytest.mark.slow
def test_a_cluster_that_fails_in_a_worker_fails_as_in_the_plain_run(
    nodes: None, engine: Engine, start: Path, plain: dict[str, Any], tiny_model_path: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    home, marks = copy_of(start, tmp_path / "home"), tmp_path / "marks"
    result = run(home, engine, partial(load_faulty, tiny_model_path, marks, "raises"))
    assert len(marks.read_text().split()) == 1
    failed, other = result.clusters
    assert failed.id == "c0" and "failed (RuntimeError" in failed.note
    assert "words" not in failed.note
    assert content(home)["adapters"][other.id] == plain["adapters"][other.id]


@pytest.mark.slow
def test_another_model_on_a_node_is_refused(
    nodes: None, engine: Engine, start: Path, plain: dict[str, Any], tmp_path: Path
) -> None:
    from langchain_uno.testing import make_tiny_model

    home = copy_of(start, tmp_path / "home")
    other = make_tiny_model(tmp_path / "other", seed=1)
    result = run(home, engine, partial(load, other))
    [told] = [note for note in result.notes if "Ray" in note]
    assert "did not start" in told and "is another model on the node" in told
    assert content(home) == plain
