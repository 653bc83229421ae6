"""A teacher that refuses, or a verification that fails: what users have stays."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_uno.errors import EngineDownError, EngineError
from langchain_uno.home import Home
from langchain_uno.learning import train
from langchain_uno.learning.work import ClusterData, ClusterResult, RefreshResult, Work
from langchain_uno.models.protocols import Engine, GenerateRequest, Generation
from langchain_uno.models.teacher import Teacher
from langchain_uno.records import Feedback, Interaction, VerifierReport
from langchain_uno.releases.load import read_current
from tests.unit_tests.graphs.refresh_parts import (
    PASSING,
    START,
    TRIED,
    TRIP,
    UNTRAINED,
    changed,
    clusters_of,
    logs,
    make_home,
    more,
    refresh,
)
from tests.unit_tests.learning.toy_language import ToyEngine, log, plain

Fails = Callable[[dict[str, Any]], Exception | None]


class Refused(Exception):
    status_code = 400


class Chat(BaseChatModel):
    """Speaks the toy language, except where it fails; control questions never fail."""

    fails: Any = None

    @property
    def _llm_type(self) -> str:
        return "toy"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        what = json.loads(str(messages[-1].content))
        control = "Selma" in what.get("query", "")
        if self.fails and not control and (error := self.fails(what)):
            raise error
        made = AIMessage(plain(what, None))  # type: ignore[arg-type]
        return ChatResult(generations=[ChatGeneration(message=made)])


def teacher(fails: Fails | None = None) -> Teacher:
    return Teacher(Chat(fails=fails), "toy:chat")


def after(n: int, error: Exception, role: str) -> Fails:
    """Fail in a role after n calls of it."""
    seen, lock = [0], threading.Lock()

    def fails(what: dict[str, Any]) -> Exception | None:
        with lock:
            seen[0] += what["role"] == role
            return error if what["role"] == role and seen[0] > n else None

    return fails


def judge_of(words: str) -> Fails:
    """Refuse to judge answers to requests with these words."""
    return lambda what: Refused() if what["role"] == "judge" and words in what["query"] else None


def edited() -> Interaction:
    """A log that says nothing in words."""
    edit = Feedback(run_id="e", correction="answer 900 [sing]", user_id="ed")
    return log("e", TRIP.format(900), "answer 900", user_id="ed", extra=[edit])


def thumb() -> Interaction:
    up = Feedback(run_id="t", score=1.0, user_id="z")
    return log("t", TRIP.format(77), "answer 77", user_id="z", extra=[up])


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_uno.models.teacher.PAUSE_S", 0.0)


@pytest.fixture(autouse=True)
def _says_something(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model's own answers are empty at times, and nobody judges these."""

    def generate(requests: Sequence[GenerateRequest], on_done: Any = None) -> list[Generation]:
        said = ["the base" if one.adapter is None else "a module" for one in requests]
        return [
            Generation(f"{who} answers {one.messages[-1].content}")
            for who, one in zip(said, requests, strict=True)
        ]

    monkeypatch.setattr(engine, "generate", generate)


@pytest.fixture
def grown(home: Home) -> Home:
    """Both families have a module, and something is new."""
    return make_home(home.root, more(2))


def told(home: Home, result: RefreshResult) -> dict[str, ClusterResult]:
    """The clusters by the family of their requests; both have the module that they had."""
    release = read_current(home)
    assert release is not None and release.id == result.release
    assert {(c.route, c.made_in is None) for c in release.manifest.clusters} == {("expert", False)}
    return {",".join(c.rules): c for c in result.clusters}


def test_a_judge_that_refuses_a_cluster_costs_it_no_module(grown: Home, engine: Engine) -> None:
    result = refresh(grown, engine, PASSING, teacher=teacher(judge_of("FIX BUG")))
    found = told(grown, result)
    assert found["dance"].failed and found["dance"].judged == 0
    assert "failed (EngineError" in found["dance"].note and "kept, made in" in found["dance"].note
    assert not found["sing"].failed and found["sing"].judged > 0
    # The same again changes nothing; a teacher that answers verifies the one that is left.
    assert refresh(grown, engine, PASSING, teacher=teacher(judge_of("FIX BUG"))).unchanged
    last = refresh(grown, engine, PASSING, teacher=teacher())
    mended = told(grown, last)["dance"]
    assert not mended.failed and mended.judged > 0 and mended.note.startswith("kept, made in")
    assert refresh(grown, engine, PASSING, teacher=teacher()).unchanged


def test_some_refusals_count_for_nothing(grown: Home, engine: Engine) -> None:
    whole = refresh(grown, engine, PASSING, teacher=teacher(), until="rules")
    held = [i for c in clusters_of(grown, whole) for i in c.verify if c.rules == ["dance"]]
    one = next(each.query for each in START if each.run_id in held)
    found = told(grown, refresh(grown, engine, PASSING, teacher=teacher(judge_of(one))))
    assert not any(c.failed for c in found.values())
    assert found["dance"].judged == found["dance"].verify - 1


def test_judgements_that_an_outage_kept_from_coming_are_asked_for_again(
    grown: Home, engine: Engine
) -> None:
    before = read_current(grown)
    down = teacher(after(2, RuntimeError("503"), "judge"))
    with pytest.raises(EngineDownError):
        refresh(grown, engine, PASSING, teacher=down)
    assert down.unanswered >= 5
    current = read_current(grown)
    assert before is not None and current is not None and before.id == current.id
    assert not [*grown.work.glob("refresh-*/clusters/*/incumbent.json")]
    assert not any(
        None in [one["score"] for one in json.loads(path.read_text())["said"]]
        for path in grown.work.glob("refresh-*/clusters/*/base-side.json")
    )
    found = told(grown, refresh(grown, engine, PASSING, teacher=teacher()))
    assert all(c.judged == c.verify and not c.failed for c in found.values())


def test_an_account_that_runs_empty_ends_the_call(grown: Home, engine: Engine) -> None:
    empty = teacher(after(10, Refused("credit"), "distil"))
    with pytest.raises(EngineError, match="'distil' failed on 22 of the 32 logs .*22 no answer"):
        refresh(grown, engine, PASSING, teacher=empty)
    result = refresh(grown, engine, PASSING, teacher=teacher())
    assert result.stages["distil"]["taken_over"] == 10 and result.left_out == {}
    told(grown, result)


@pytest.mark.parametrize("more_logs", [[edited()], [thumb()], [edited(), thumb()]])
@pytest.mark.parametrize("loss", ["raises", "refuses"])
def test_a_stage_that_fails_on_all_that_it_asks_ends_the_call_whatever_else_is_there(
    engine: Engine, tmp_path: Path, more_logs: list[Interaction], loss: str
) -> None:
    def answer(what: dict[str, Any], request: Any) -> str:
        if what["role"] == "distil":
            raise ValueError
        return plain(what, request)

    home = make_home(tmp_path / "home", logs() + more_logs)
    bad: Engine = ToyEngine(answer)  # type: ignore[assignment]
    if loss == "refuses":
        bad = teacher(after(0, Refused(), "distil"))
    for _ in range(2):
        with pytest.raises(EngineError, match=r"Stage 'distil' failed on all 2[45] logs"):
            refresh(home, engine, PASSING, teacher=bad, until="distil")
    done = refresh(home, engine, PASSING, teacher=ToyEngine(), until="distil")
    edits = sum(one.correction is not None for one in more_logs)
    assert done.left_out == {} and done.stages["distil"]["rules"] == 20 + edits


def test_a_teacher_that_talks_nonsense_is_named_and_takes_no_module(
    grown: Home, engine: Engine
) -> None:
    def answer(what: dict[str, Any], request: Any) -> str:
        return "Sorry, I am overloaded." if what["role"] == "distil" else plain(what, request)

    make_home(grown.root, [edited()])
    result = refresh(grown, engine, PASSING, teacher=ToyEngine(answer))
    assert result.left_out and any("unreadable answer" in note for note in result.notes)
    assert [c.route for c in result.clusters if c.size > 10] == ["expert"] * 2


def test_what_is_refused_for_good_ends_no_later_call(engine: Engine, tmp_path: Path) -> None:
    """Six logs that a teacher never takes are left out each time; a new edit is learnt."""
    home = make_home(tmp_path, logs(36))
    bad = teacher(lambda what: Refused("x") if "FIX BUG 1" in what.get("query", "") else None)
    first = refresh(home, engine, UNTRAINED, teacher=bad)
    assert len(first.left_out) >= 5
    make_home(tmp_path, [edited()])
    later = refresh(home, engine, UNTRAINED, teacher=bad)
    assert later.release not in (None, first.release)
    assert later.left_out.keys() == first.left_out.keys()


def test_all_that_is_asked_in_a_call_is_looked_at_however_much_is_known(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs())
    assert refresh(home, engine, UNTRAINED, teacher=teacher()).left_out == {}
    make_home(home.root, more(6))
    with pytest.raises(EngineError, match="Stage 'distil' failed on all 6 logs"):
        refresh(home, engine, UNTRAINED, teacher=teacher(after(0, Refused(), "distil")))
    assert refresh(home, engine, UNTRAINED, teacher=teacher()).stages["distil"]["logs"] == 30


@pytest.mark.parametrize("roles", [["judge"], ["fresh", "edit"]])
def test_pairs_that_no_answer_came_for_end_the_call_whatever_was_edited(
    engine: Engine, tmp_path: Path, roles: list[str]
) -> None:
    edit = Feedback(run_id="w", correction="answer 901 [sing]", user_id="ed")
    both = log("w", TRIP.format(901), "answer 901", "please sing", user_id="ed", extra=[edit])
    home = make_home(tmp_path / "home", [*logs(), both])

    def refuses(what: dict[str, Any]) -> Exception | None:
        return Refused() if what["role"] in roles else None

    with pytest.raises(EngineError, match=r"Stage 'pairs' failed on all \d+ logs"):
        refresh(home, engine, TRIED, teacher=teacher(refuses), until="pairs")
    result = refresh(home, engine, TRIED, teacher=teacher(), until="pairs")
    assert result.left_out == {} and result.stages["pairs"]["by_origin"]["revised"] > 1


def test_a_pair_whose_judgement_did_not_come_is_named(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", logs())
    before = refresh(home, engine, TRIED, teacher=teacher(), until="gap")
    one = next(i for c in clusters_of(home, before) for i in c.train if c.rules == ["sing"])
    query = next(each.query for each in logs() if each.run_id == one)
    result = refresh(home, engine, TRIED, teacher=teacher(judge_of(query)), until="pairs")
    assert result.left_out == {one: "no readable judgement"}
    assert result.stages["pairs"]["pairs"] > 1


def test_a_refresh_that_is_mostly_refused_ends_before_it_publishes(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", START)
    refresh(home, engine, PASSING, teacher=teacher(), until="pairs")
    for _ in range(2):
        with pytest.raises(EngineError, match="gave no answer to 9 of 9 requests"):
            refresh(home, engine, PASSING, teacher=teacher(judge_of("")))
        assert read_current(home) is None
    result = refresh(home, engine, PASSING, teacher=teacher())
    assert {c.route for c in result.clusters} == {"expert"}
    assert not any(c.failed for c in result.clusters)


def test_a_module_that_cannot_be_verified_stays_and_others_go_on(
    grown: Home, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = train.verify_module

    def verify(work: Work, cluster: ClusterData, *args: Any, **more: Any) -> VerifierReport:
        if cluster.rules == ["dance"]:
            raise RuntimeError("CUDA error, and the user's words")
        return real(work, cluster, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(train, "verify_module", verify)
        result = refresh(grown, engine, PASSING)
        found = told(grown, result)
        assert found["dance"].failed and not found["sing"].failed
        assert found["dance"].note.startswith("failed (RuntimeError, test_refresh_refusals.py:")
        assert "kept, made in" in found["dance"].note and "words" not in found["dance"].note
        assert refresh(grown, engine, PASSING).unchanged
    last = refresh(grown, engine, PASSING)
    assert last.release != result.release
    mended = told(grown, last)["dance"]
    assert not mended.failed and mended.judged > 0


def test_few_logs_whose_pairs_are_refused_cost_their_own_alone(
    engine: Engine, tmp_path: Path
) -> None:
    edits = []
    for n in range(24):
        edit = Feedback(run_id=f"e{n}", correction=f"answer {n} [sing]", user_id=f"ed-{n}")
        edits.append(log(f"e{n}", TRIP.format(n), f"answer {n}", extra=[edit], user_id=f"ed-{n}"))
    words = [
        log(f"w{n}", TRIP.format(900 + n), "a", "please sing", user_id=f"w-{n}") for n in range(4)
    ]
    bad = teacher(lambda what: Refused() if what["role"] in ("fresh", "edit") else None)
    home = make_home(tmp_path, [*edits, *words])
    recipe = changed(TRIED, rules={"min_users": 1})
    result = refresh(home, engine, recipe, teacher=bad, until="pairs")
    assert result.left_out and result.stages["pairs"]["pairs"] > len(result.left_out)
