"""A refresh that dies at any moment is finished by the next call, with the same release."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from langchain_uno.home import Home
from langchain_uno.learning.work import RefreshProgress, RefreshResult
from langchain_uno.models.protocols import Engine
from langchain_uno.records import STAGES, Feedback
from langchain_uno.releases.load import list_releases, read_current
from langchain_uno.releases.manifest import lineage_key
from tests.unit_tests.graphs.fault_parts import Died, Moment, faulty
from tests.unit_tests.graphs.refresh_parts import RECIPE, changed, logs, make_home, refresh
from tests.unit_tests.learning.toy_language import ToyEngine, plain

# One family learns an expert, the other a critic (an expert fails first): every kind of write.
TINY = changed(
    RECIPE,
    verify={"level": None, "win_rate": 0.53},
    lora={"epochs": 2, "batch_size": 16},
    expert={"learning_rate": 0.3},
    critic={"learning_rate": 0.3},
)


def judge(what: dict[str, Any], request: Any) -> str:
    """Of trips it likes dull answers, which a wild training gives; the others' are all alike."""
    if what["role"] != "judge" or "trip" not in what["query"]:
        return plain(what, request)
    return f"dull {10 - min(8, len(set(what['answer'])) // 2)}"


def once(home: Home, engine: Engine, progress: RefreshProgress | None = None) -> RefreshResult:
    teacher = ToyEngine(judge)
    return refresh(home, engine, TINY, teacher=teacher, max_steps=2, progress=progress)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with logs and a key, so that copies name their logs alike."""
    interactions = logs(16)
    interactions[0].feedback.append(
        Feedback(run_id="run-000", correction="answer 0 [sing] and more", user_id="user-0")
    )
    home = make_home(tmp_path_factory.mktemp("start") / "home", interactions)
    lineage_key(home)
    return home.root


def copy_of(start: Path, to: Path) -> Home:
    shutil.copytree(start, to)
    return Home(to)


def content(home: Home) -> dict[str, Any]:
    """What a release is made of, less its name and its times."""
    [name] = list_releases(home)
    release = read_current(home)
    assert release is not None and release.id == name
    text = json.dumps(
        {
            "clusters": [c.model_dump(mode="json") for c in release.manifest.clusters],
            "lineage": release.manifest.lineage,
            "threshold": release.manifest.threshold,
            "figures": {
                k: v for k, v in release.manifest.figures.items() if k not in ("seconds", "refresh")
            },
        },
        sort_keys=True,
    )
    return {
        "manifest": text.replace(name, "RELEASE"),
        "centroids": release.centroids.tobytes(),
        "adapters": {
            a.cluster: {p.name: p.read_bytes() for p in release.adapters[a.name].iterdir()}
            for a in release.manifest.adapters
        },
    }


@pytest.fixture(scope="module")
def whole(
    engine: Engine, start: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], list[str]]:
    """The release of a refresh that nothing disturbs, and the changes it was made by."""
    home = copy_of(start, tmp_path_factory.mktemp("whole") / "home")
    with faulty(home.root, lambda k, name: None) as faults:
        once(home, engine)
    return content(home), faults.seen


def test_the_undisturbed_refresh_makes_every_kind_of_write(
    whole: tuple[dict[str, Any], list[str]],
) -> None:
    made, changes = whole
    for stage in STAGES:
        assert any(f"{stage}.json" in change for change in changes), stage
    for part in ("snapshot", "expert-trained", "critic-trained", "tried", "decision", "release-id"):
        assert any(f"{part}.json" in change for change in changes), part
    assert any(c.startswith("remove") and "epoch-" in c for c in changes)
    assert made["adapters"]


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("before", marks=pytest.mark.slow),
        "half",
        pytest.param("after", marks=pytest.mark.slow),
    ],
)
def test_dying_at_one_write_after_the_other_makes_the_same_release(
    engine: Engine,
    start: Path,
    whole: tuple[dict[str, Any], list[str]],
    tmp_path: Path,
    moment: Moment,
) -> None:
    """Each call dies at the first change at which none died before; in the end one is through."""
    home = copy_of(start, tmp_path / "home")
    died: set[str] = set()

    def dies(k: int, name: str) -> Moment | None:
        return None if name in died else moment

    while True:
        with faulty(home.root, dies) as faults:
            try:
                once(home, engine)
                break
            except Died as where:
                died.add(str(where))
        assert faults.dead
        assert engine.adapters() == []
    expected, changes = whole
    assert died >= set(changes)
    assert content(home) == expected
    assert once(home, engine).unchanged


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "half", "after"])
def test_dying_once_at_any_write_makes_the_same_release(
    engine: Engine,
    start: Path,
    whole: tuple[dict[str, Any], list[str]],
    tmp_path: Path,
    moment: Moment,
) -> None:
    expected, changes = whole
    for n in range(len(changes)):
        home = copy_of(start, tmp_path / str(n))
        with (
            pytest.raises(Died),
            faulty(home.root, lambda k, name, n=n: moment if k == n else None),
        ):
            once(home, engine)
        once(home, engine)
        assert content(home) == expected, changes[n]
        shutil.rmtree(home.root)


KILLS = [(stage, False) for stage in STAGES] + [
    ("distil", True),
    ("train", True),
    ("release", True),
]
KILLS.sort(key=lambda kill: STAGES.index(kill[0]))
"""When: as a stage begins, or after its first item."""

KILLER = """
import gc, os, signal, sys
from pathlib import Path
sys.path.insert(0, {repo!r})
import chromadb, torch, peft, transformers
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer
from langchain_uno.home import Home
from langchain_uno.learning.work import Silent
from tests.unit_tests.graphs import test_refresh_faults as parts
from tests.unit_tests.graphs.refresh_parts import tiny_engine

class Kill(Silent):
    def __init__(self, stage, after):
        self.stage, self.after = stage, after
    def start(self, stage, total, note=""):
        if stage == self.stage and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
    def advance(self, stage, n=1):
        if stage == self.stage and self.after:
            os.kill(os.getpid(), signal.SIGKILL)

gc.freeze()
for stage, after in parts.KILLS:
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        engine = tiny_engine(Path({model!r}))
        parts.once(Home(Path({home!r})), engine, Kill(stage, after))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(stage, after, os.WTERMSIG(status) if os.WIFSIGNALED(status) else "ended")
"""


def test_a_process_killed_in_every_stage_leaves_a_refresh_that_the_next_finishes(
    engine: Engine,
    start: Path,
    whole: tuple[dict[str, Any], list[str]],
    tmp_path: Path,
    tiny_model_path: Path,
    repo: Path,
) -> None:
    home = copy_of(start, tmp_path / "home")
    code = KILLER.format(repo=str(repo), model=str(tiny_model_path), home=str(home.root))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{stage} {after} 9" for stage, after in KILLS]
    once(home, engine)
    assert content(home) == whole[0]
