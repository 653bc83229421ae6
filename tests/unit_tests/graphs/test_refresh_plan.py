"""A dry run says what a refresh would do and cost, and does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langchain_uno.cli.command import app
from langchain_uno.erasure import forget
from langchain_uno.errors import EmptyLogError, ModelMismatchError
from langchain_uno.home import Home
from langchain_uno.learning.plan import plan_refresh, settings_notes
from langchain_uno.learning.work import Silent, Work
from langchain_uno.logs.store import LogStore
from langchain_uno.models.protocols import Engine
from langchain_uno.recipe import Recipe, load_recipe
from langchain_uno.releases.publish import rollback
from tests.unit_tests.graphs.refresh_parts import UNTRAINED, changed, logs, make_home, refresh
from tests.unit_tests.graphs.test_refresh_thumbs import week
from tests.unit_tests.learning.toy_language import (
    ToyEmbedder,
    ToyEngine,
    ToyPrompts,
    ToyReranker,
    log,
)

LORA = {"epochs": 2, "batch_size": 4}
PLANNED = changed(UNTRAINED, verify={"held_out": 0.25, "level": None}, lora=LORA)
"""By the paper's rule any number of people will do."""


def plan(home: Home, engine: Engine, recipe: Recipe = PLANNED) -> Any:
    work = Work(
        home=home,
        engine=engine,
        embedder=ToyEmbedder(),
        reranker=ToyReranker(),
        teacher=ToyEngine(),  # type: ignore[arg-type]
        prompts=ToyPrompts(),  # type: ignore[arg-type]
        teacher_prompts=ToyPrompts(),  # type: ignore[arg-type]
        recipe=recipe,
        progress=Silent(),
        max_steps=2,
    )
    return plan_refresh(work)


def files(home: Home) -> dict[str, bytes]:
    skipped = ("-shm", "-wal")  # SQLite's own: reading makes and removes them
    found = (p for p in home.path.rglob("*") if p.is_file() and not p.name.endswith(skipped))
    return {str(p.relative_to(home.path)): p.read_bytes() for p in found}


def test_a_plan_counts_what_a_first_refresh_does(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", logs())
    before = files(home)
    found = plan(home, engine)
    assert files(home) == before
    assert (found.interactions, found.heard, found.new, found.usable) == (24, 24, 24, 24)
    assert found.to_distil == found.calls["distil"].calls == found.calls["guess"].calls == 24
    assert found.goes_on is None and not found.as_last and sum(found.minutes.values()) > 0
    # 18 training logs, with a candidate from the words and one from the rules
    assert found.calls["revise"].calls == 36
    # each candidate and each old answer; of 6 held-out requests the base's answer and an epoch's
    assert found.calls["answer"].calls == 12
    assert found.calls["judge"].calls == 36 + 18 + 12
    assert found.calls["distil"].who == "teacher" and found.calls["guess"].who == "model"
    assert found.calls["distil"].output_tokens == 24 * PLANNED.role_tokens
    assert found.clusters == 1 and found.steps == 2
    assert found.tokens_per_second > 0 and found.step_seconds > 0


def test_after_an_erasure_no_log_counts_as_new(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", logs())
    refresh(home, engine, UNTRAINED)
    forget(home, run_ids=["run-003"])
    found = plan(home, engine)
    assert (found.heard, found.new) == (23, None)


def test_a_plan_knows_the_last_refresh_and_an_unfinished_one(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs())
    done = refresh(home, engine, PLANNED)
    for n in range(12):
        new = log(f"new-{n}", f"plan a trip to {n}", "no", "please sing", user_id=f"u-{n}")
        make_home(tmp_path / "home", [new])
    found = plan(home, engine)
    assert (found.usable, found.new, found.to_distil) == (36, 12, 12)
    assert found.as_last and found.clusters == len(done.clusters)
    each = done.seconds["cluster"] * 36 / 24 / 60
    assert found.minutes["cluster"] == pytest.approx(each, abs=0.006)
    file = home.releases / str(done.release) / "manifest.json"
    told = file.read_text()
    file.write_text(json.dumps(json.loads(told) | {"base_fingerprint": "another model's"}))
    assert not plan(home, engine).as_last, "another model takes another time"
    file.write_text(told)
    refresh(home, engine, PLANNED, until="rules")
    found = plan(home, engine)
    assert found.goes_on == ["filter", "distil", "cluster", "rules"] and found.to_distil == 0


def test_a_plan_counts_no_training_where_too_few_people_spoke(
    engine: Engine, tmp_path: Path
) -> None:
    every = [
        log(f"r-{n}", f"plan a trip to {n}", "no", "please sing", user_id=f"u-{n}")
        for n in range(10)
    ]
    home, decided = make_home(tmp_path, every[:9]), changed(PLANNED, verify={"level": 0.05})
    found = plan(home, engine, decided)
    assert (found.people, found.needed, found.steps) == (9, 10, 0)
    assert [found.calls[role].calls for role in ("revise", "judge", "answer")] == [0] * 3
    assert plan(home, engine).steps == plan(make_home(tmp_path, every), engine, decided).steps == 2


def test_a_plan_counts_what_drawing_rules_from_thumbs_takes(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, week(96, 24))
    found = plan(home, engine, changed(PLANNED, verify={"level": 0.05}))
    assert found.to_distil == 0 and found.clusters == 4
    assert found.calls["distil"].calls == 4  # one a cluster
    # Each thumb is judged by each of three rules, and a revision of its answer is.
    assert found.calls["revise"].calls == 96
    less = plan(home, engine, changed(PLANNED, verify={"level": 0.05}, pairs={"retention": True}))
    assert less.calls["distil"].calls == 0
    assert found.calls["judge"].calls - less.calls["judge"].calls == 4 * 96


def test_a_plan_without_feedback_says_what_a_refresh_says(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, [one.model_copy(update={"feedback": []}) for one in logs(3)])
    told = "None of the 3 interactions in .* has feedback"
    for call in (plan, refresh):
        with pytest.raises(EmptyLogError, match=told):
            call(home, engine)


def test_a_plan_refuses_the_vectors_of_another_embedder(engine: Engine, tmp_path: Path) -> None:
    home = make_home(tmp_path, logs())
    refresh(home, engine, PLANNED, embedder=Other())
    before = files(home)
    told = "langchain-uno logs drain --rebuild --home DIR, with the same --model and --embeddings"
    for call in (plan, refresh):
        with pytest.raises(ModelMismatchError, match=told):
            call(home, engine, PLANNED)
        assert call is refresh or files(home) == before
    LogStore.open(home, ToyEmbedder(), rebuild=True).close()
    assert plan(home, engine).usable == 24


class Other(ToyEmbedder):
    """The toy by another name."""

    fingerprint = "other"


def test_the_command_plans_without_writing(tmp_path: Path, tiny_model_path: Path) -> None:
    home = make_home(tmp_path / "home", logs(8))
    before = files(home)
    words = ["train", "--home", str(home.root), "--model", str(tiny_model_path), "--dry-run"]
    words += ["--set", "role_tokens=8", "--set", "answer_tokens=8"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["usable"] == 8 and not found["unchanged"]
    shown = CliRunner().invoke(app, words)
    assert "8 of 8 logs can be learnt from" in shown.stdout
    assert "Nothing would be trained: 8 people gave" in shown.stdout
    assert "Training:" not in shown.stdout
    assert "Nothing was done: this was a dry run." in shown.stdout
    assert files(home) == before


@pytest.mark.parametrize(("most", "measured"), [(12_000, None), (10, 10)])
def test_a_step_is_measured_on_a_log_of_usual_length(
    engine: Any, tmp_path: Path, most: int, measured: int | None
) -> None:
    few = [log(f"r-{n}", f"plan a trip to {n}", "no", "sing", user_id=f"u-{n}") for n in range(4)]
    huge = log("huge", "plan a trip", "a" * 3000, "please sing", user_id="u-huge")
    home = make_home(tmp_path / "home", [huge, *few])
    rows: list[int] = []

    def seen(_: Any, args: Any, given: dict[str, Any]) -> None:
        rows.append(given["input_ids"].shape[1])

    hook = engine.model.register_forward_pre_hook(seen, with_kwargs=True)
    try:
        plan(home, engine, changed(PLANNED, expert={"max_length": most}))
    finally:
        hook.remove()
    usual = len(engine.encode("plan a trip to 1\nno"))
    assert rows[-1] == rows[-2] and abs(rows[-1] - (measured or usual)) <= 2


def test_settings_that_differ_are_counted_and_old_releases_lack_some(
    engine: Engine, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs())
    release = refresh(home, engine, UNTRAINED).release
    (told,) = settings_notes(home, load_recipe("paper"), engine)
    assert f"those of release {release}: prompt_set toy -> real, " in told
    assert " more. Clusters are cut anew; all modules are" in told, "paper keeps none"
    assert "Its recipe ('toy') with the same --set keeps the former settings once," in told
    assert settings_notes(home, UNTRAINED, engine) == []
    file = home.releases / str(release) / "manifest.json"
    said = json.loads(file.read_bytes())
    del said["recipe"]["lora"]["rank"], said["recipe"]["gap"]
    file.write_text(json.dumps(said))
    other = changed(UNTRAINED, lora={"rank": 9}, verify={"win_rate": 0.6}, gap={"unknown": 0.1})
    (told,) = settings_notes(home, other, engine)
    assert ": verify.win_rate 0.53 -> 0.6. " in told and "; modules stay where" in told
    rollback(home)
    (told,) = settings_notes(home, other, engine)
    assert f"release {release}:" in told and "all modules are trained anew" in told
    file.write_text(json.dumps(said | {"base_fingerprint": "another model's"}))
    assert settings_notes(home, other, engine) == [], "its settings are not to be kept"
    file.write_text("{")
    assert settings_notes(home, other, engine) == []
