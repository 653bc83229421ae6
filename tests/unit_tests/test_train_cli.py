"""``langchain-uno train``: one command, one summary, clear errors and exit codes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from langchain_uno.cli.command import app
from langchain_uno.errors import ConfigError
from langchain_uno.home import Home, HomeSettings, load_settings, refresh_lock
from langchain_uno.learning.work import ClusterResult, RefreshResult, refresh_line
from langchain_uno.logs.journal import Journal
from langchain_uno.recipe import Recipe
from langchain_uno.records import Feedback, Interaction, Message
from langchain_uno.releases.load import read_current
from langchain_uno.testing import make_tiny_model

TOML = """
name = "tiny"
prompt_set = "real"
answer_tokens = 8
revision_tokens = 8
role_tokens = 8
[cluster]
min_size = 4
[pairs]
candidates = 1
[lora]
rank = 4
dropout = 0.0
batch_size = 4
epochs = 2
[expert]
max_length = 1024
[critic]
max_length = 1024
[verify]
held_out = 0.25
judgements = 1
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small recipe as a file, with the real models' prompts."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(TOML)
    return path


def edited(n: int = 8, *words: str, language: str = "en") -> list[Interaction]:
    """Logs whose users rewrote the answers: pairs without any word of the tiny model."""
    out = []
    for i in range(n):
        said = [Feedback(run_id=f"r{i}", key="correction", correction=f"better answer {i}")]
        said += [Feedback(run_id=f"r{i}", key="user_follow_up", comment=word) for word in words]
        out.append(
            Interaction(
                run_id=f"r{i}",
                messages=[Message(role="user", content=f"question {i} about cats and dogs")],
                answer=f"answer number {i}",
                feedback=said,
                user_id=f"user-{i}",
                language=language,  # type: ignore[arg-type]
            )
        )
    return out


def make_home(root: Path, logs: list[Interaction], namespace: str = "default") -> Home:
    home = Home.locate(root, namespace).ensure()
    with Journal(home.journal) as journal:
        for one in logs:
            journal.append_interaction(one)
    return home


def run(*args: object, **env: str) -> Result:
    """Run ``langchain-uno train``."""
    words = ["train", *(str(a) for a in args)]
    return CliRunner().invoke(app, words, env={"COLUMNS": "60", **env})


def test_help_teaches() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("--home", "--model", "--teacher", "--until", "--json", "LANGCHAIN_UNO_HOME"):
        assert word in result.stdout
    assert "Exit codes" in result.stdout
    assert "langchain-uno train --home ./home" in result.stdout


def test_a_refresh_then_the_same_again(tiny_model_path: Path, recipe: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", edited(16))
    args = ("--model", tiny_model_path, "--recipe", recipe, "--max-steps", 2, "--seed", 3)
    first = run("--home", home.root, *args, "--json")
    assert first.exit_code == 0, first.stderr
    said: dict[str, Any] = json.loads(first.stdout)
    assert said["interactions"] == said["usable"] == 16
    assert sum(c["pairs"] for c in said["clusters"]) > 0
    assert {c["route"] for c in said["clusters"]} == {"base"}
    release = read_current(home)
    assert release is not None
    assert release.id == said["release"]
    assert release.manifest.recipe["seed"] == 3

    # The home may come from the environment, and nothing is new.
    again = run(*args, LANGCHAIN_UNO_HOME=str(home.root))
    assert again.exit_code == 0, again.stderr
    assert "Nothing new" in again.stdout
    assert said["release"] in again.stdout


def test_other_settings_than_the_last_are_told_before_the_work_begins(
    tiny_model_path: Path, recipe: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", edited(16))
    args = ("--home", home.root, "--model", tiny_model_path, "--recipe", recipe, "--max-steps", 1)
    first = run(*args, "--set", "cluster.min_size=6", "--set", "lora.rank=2", "--json")
    release = json.loads(first.stdout)["release"]
    assert "settings" not in first.stderr
    told = (
        f"Settings differ from those of release {release}: cluster.min_size 6 -> 4, lora.rank 2 -> "
        "4. Clusters are cut anew; modules stay where"
    )
    keeps = "--set cluster.min_size=6 --set lora.rank=2 keeps the former settings once,"
    planned = run(*args, "--dry-run")
    assert f"Note: {told}" in planned.stdout and keeps in planned.stdout
    assert json.loads(run(*args, "--dry-run", "--json").stdout)["notes"][0].startswith(told)
    again = run(*args)
    before, begins, _ = again.stderr.partition("filter: begins")
    assert begins and f"settings: {told}" in before and keeps in before
    assert f"Note: {told}" in again.stdout
    anew = run(*args, "--dry-run", "--set", "keep=false", "--set", "cluster.min_size=none")
    assert "cluster.min_size 4 -> none" in anew.stdout
    assert "all modules are trained anew" in anew.stdout
    assert "Settings" not in run(*args, "--dry-run").stdout


def test_a_stopped_refresh_of_other_settings_is_told(
    tiny_model_path: Path, recipe: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", edited(16))
    args = ("--home", home.root, "--model", tiny_model_path, "--recipe", recipe)
    assert run(*args, "--max-steps", 1, "--until", "rules").exit_code == 0
    assert "was stopped" not in run(*args, "--max-steps", 1, "--dry-run").stdout
    told = "A refresh that was stopped in stage gap had other settings or models."
    assert told in run(*args, "--dry-run").stdout
    assert f"settings: {told}" in run(*args, "--until", "filter").stderr


def test_nothing_new_loads_no_model(
    tiny_model_path: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path / "home", edited())
    model = tmp_path / "model"
    shutil.copytree(tiny_model_path, model)
    args = ("--home", home.root, "--model", model, "--recipe", recipe, "--max-steps", 1)
    first = run(*args, "--json")
    assert first.exit_code == 0, first.stderr
    release = json.loads(first.stdout)["release"]

    def load(*_: Any, **__: Any) -> Any:
        raise ConfigError("a model is loaded")

    monkeypatch.setattr("langchain_uno.models.loading.load_engine", load)
    again = run(*args)
    assert again.exit_code == 0, again.stderr
    assert f"Nothing new since release {release}" in again.stdout

    def looks_again(*more: object) -> bool:
        result = run(*args, *more)
        return result.exit_code != 0 and "a model is loaded" in result.stderr

    assert looks_again("--seed", 8)
    (model / "config.json").touch()  # as whoever replaces the model does
    assert looks_again()
    monkeypatch.undo()
    assert "Nothing new" in run(*args).stdout
    monkeypatch.setattr("langchain_uno.models.loading.load_engine", load)
    with Journal(home.journal) as journal:
        journal.append_feedback(Feedback(run_id="r0", feedback_id="f", score=1.0))
    assert looks_again()
    shutil.rmtree(home.releases / release)
    assert looks_again()


def test_until_rules_then_the_rest(tiny_model_path: Path, recipe: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", edited(), namespace="tenant-a")
    args = ("--home", home.root, "--namespace", "tenant-a", "--model", tiny_model_path)
    args = (*args, "--recipe", recipe, "--max-steps", 1)
    stopped = run(*args, "--until", "rules", "--json", "--no-promote")
    assert stopped.exit_code == 0, stopped.stderr
    said = json.loads(stopped.stdout)
    assert said.keys() == {"rules"}
    assert {"distilled", "taught", "dropped"} <= said["rules"].keys()
    assert read_current(home) is None
    waits = str(refresh_line(home))
    assert "waits before stage gap, as --until said: `langchain-uno train --home " in waits
    call = shlex.split(waits.split("`")[1])
    assert {str(one) for one in (*args, "--no-promote")} <= set(call)
    copied = Home.locate(shutil.copytree(home.root, tmp_path / "copied"), "tenant-a")
    assert f" train --home {copied.root} --namespace tenant-a " in str(refresh_line(copied))
    done = run(*call[2:])
    assert done.exit_code == 0, done.stderr
    assert "Taken over from an earlier call: filter, distil" in done.stdout
    assert str(home.releases) in done.stdout
    assert read_current(home) is None, "a person is to look at it"
    assert run(*args).exit_code == 0
    again = run(*args, "--until", "rules").stdout
    assert "nothing released" not in again and "Without --until" not in again
    assert not (home.root / "releases").exists()


def test_feedback_that_came_while_a_refresh_was_stopped_is_learnt_next(
    tiny_model_path: Path, recipe: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", edited())
    args = ("--home", home.root, "--model", tiny_model_path, "--recipe", recipe, "--max-steps", 1)
    assert run(*args, "--until", "rules").exit_code == 0
    make_home(tmp_path / "home", edited(10)[8:])
    assert "Feedback on 2 logs came after it began" in run(*args).stdout
    assert "10 of 10 logs" in run(*args).stdout
    assert "Nothing new" in run(*args).stdout


def test_where_hosts_share_an_index_nothing_is_taken_for_granted(
    tiny_model_path: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path / "home", edited())
    args = ("--home", home.root, "--model", tiny_model_path, "--recipe", recipe, "--max-steps", 1)
    assert run(*args).exit_code == 0
    # Another host's records are no part of this journal: the index has to be asked.
    asked = run(*args, LANGCHAIN_UNO_CHROMA="http://127.0.0.1:9")
    assert asked.exit_code != 0 and "Nothing new" not in asked.stdout


@pytest.mark.parametrize(
    "args", [("--model", "/no/such/dir"), ("--teacher", "no-provider:x"), ("--reranker", "./none")]
)
def test_a_name_that_is_no_model_ends_in_words(
    tmp_path: Path, args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(tmp_path / "home", edited())
    result = run("--home", home.root, *args)
    assert result.exit_code not in (0, 1)
    assert "\nError: " in result.stderr


# -- the summary -----------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model_path: Path) -> Iterator[Any]:
    """Run the command with a refresh that ends as the test says; the call is kept in ``seen``."""
    home = make_home(tmp_path / "home", edited(2))
    seen: dict[str, Any] = {}

    def command(*args: str, **result: Any) -> Result:
        def refresh(**parts: Any) -> RefreshResult:
            seen.update(parts)
            return RefreshResult(
                refresh_id="refresh-1", **{"current": result.get("release"), **result}
            )

        monkeypatch.setattr("langchain_uno.graphs.refresh.run_refresh", refresh)
        return run("--home", home.root, "--model", tiny_model_path, *args)

    command.seen = seen  # type: ignore[attr-defined]
    return command


CLUSTERS = [
    ClusterResult(
        id="c0", size=40, train=31, verify=9, people=12, gap=0.21, route="expert",
        win_rate=0.71, interval=(0.58, 0.82),
    ),
    ClusterResult(id="c1", size=30, train=24, verify=6, people=8, gap=0.7, route="critic"),
    ClusterResult(
        id="c2", size=10, train=8, verify=2, people=3, note="two people are too few to decide"
    ),
]  # fmt: skip


def test_the_summary_says_what_was_learnt_and_from_what(told: Any) -> None:
    result = told(
        release="r-1",
        interactions=95,
        usable=80,
        dropped={"duplicate": 10, "too_short": 5},
        waiting=3,
        without_user=1,
        clusters=CLUSTERS,
        seconds={"distil": 30.0, "train": 300.0},
        notes=["the release r-0 stays revoked"],
    )
    assert result.exit_code == 0, result.stderr
    for sentence in (
        "1 expert and 1 critic, learnt from 55 logs; the base model answers 1 other cluster",
        "80 of 95 logs can be learnt from (left out: 10 duplicate, 5 too short).",
        "3 pieces of feedback waiting",
        "1 log without a user",
        "c2: two people are too few to decide",
        "Note: the release r-0 stays revoked",
        "It took 6 min (longest: train 5 min, distil 30 s).",
        "Release r-1 is current; it lies in ",
        "0.71 (0.58-0.82)",
        "Logs: held-out too. People: in training, asking in words.",
    ):
        assert sentence in result.stdout
    table = result.stdout.partition("80 of 95")[0].partition("c2: ")[0]
    assert max(map(len, table.splitlines())) <= 60


def test_a_release_of_the_base_alone_says_so(told: Any) -> None:
    tried = CLUSTERS[2].model_copy(update={"win_rate": 0.5, "interval": (0.2, 0.8)})
    result = told(release="r-1", interactions=8, usable=8, clusters=[tried])
    assert "Nothing was learnt: no module passed its check" in result.stdout
    assert "Release r-1 has no module; it lies in " in result.stdout
    assert "learnt from 8" not in result.stdout and "is current" not in result.stdout
    assert "waiting" not in result.stdout and "without a user" not in result.stdout
    result = told(release="r-1", clusters=CLUSTERS[2:])
    assert "Nothing was learnt: no module was made, the base model" in result.stdout


def test_the_call_that_goes_on_is_kept_without_secrets(told: Any) -> None:
    told("--set", "name=https://ann:pass@host", "--seed", "7", release="r-1")
    call = told.seen["call"]
    assert "--seed 7" in shlex.join(call) and call[-2:] == ["--set", "URL"]
    assert not {"--home", "--no-promote"} & set(call)
    told("--no-promote", release="r-1")
    assert "--no-promote" in told.seen["call"]


def test_nothing_new(told: Any) -> None:
    note = "the release r-2 was revoked"
    result = told(release="r-1", current="r-1", unchanged=True, notes=[note])
    assert "Nothing new since release r-1: it stands." in result.stdout
    assert "Note: the release r-2 was revoked" in result.stdout
    for current in ("r-0", None):  # rolled back, or revoked: the note says what stands
        other = told(release="r-1", current=current, unchanged=True, notes=[note])
        assert "it stands" not in other.stdout and f"Note: {note}" in other.stdout
    assert "learnt" not in result.stdout


def test_until_prints_the_counts_of_its_stage(told: Any) -> None:
    rules = {"distilled": 9, "taught": 7, "dropped": {"too_few_people": 2}}
    stages = {"filter": {"usable": 5}, "rules": rules}
    as_json = told("--until", "rules", "--json", stages=stages)
    assert json.loads(as_json.stdout) == {"rules": rules}
    assert told.seen["until"] == "rules"
    shown = told("--until", "rules", stages=stages, notes=["the distiller looks broken"])
    assert "2 too few people" in shown.stdout
    assert "Stopped after rules, nothing released." in shown.stdout
    assert "Note: the distiller looks broken" in shown.stdout
    wrong = told("--until", "verify")
    assert wrong.exit_code == 2
    assert "verify" in wrong.stderr


def test_json_is_the_whole_result_and_alone(told: Any) -> None:
    result = told("--json", release="r-1", clusters=CLUSTERS)
    said = RefreshResult.model_validate_json(result.stdout)
    assert said.clusters == CLUSTERS
    assert "load: begins" in result.stderr, "progress goes elsewhere"
    assert told("--json", "--quiet", release="r-1").stderr == ""


def test_the_recipe_is_that_of_the_model_unless_one_is_named(
    told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name() -> str:
        used: Recipe = told.seen["recipe"]
        return used.name

    told(release="r-1")
    assert name() == "default"
    told("--recipe", "paper", "--seed", "5", release="r-1")
    assert (name(), told.seen["recipe"].seed) == ("paper", 5)


# -- what goes wrong -------------------------------------------------------------------------------


def test_missing_model(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", edited())
    result = run("--home", home.root, "--model", "nobody/no-such-model")
    assert result.exit_code == 4
    assert "no model 'nobody/no-such-model'" in result.stderr
    assert "Traceback" not in result.stderr
    assert read_current(home) is None


def test_missing_home_no_home_and_an_empty_one(tmp_path: Path) -> None:
    missing = run("--home", tmp_path / "nowhere")
    assert missing.exit_code == 3
    assert "There is no home" in missing.stderr
    assert not (tmp_path / "nowhere").exists()
    assert run(LANGCHAIN_UNO_HOME="").exit_code == 2
    empty = run("--home", tmp_path)
    assert empty.exit_code == 6
    assert "is empty" in empty.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--recipe", "nothing"), 2, "no recipe"),
        (("--recipe", "embedded"), 2, "'bundled'"),
        (("--set", "lora.rnak=8"), 2, "did you mean 'lora.rank'"),
        (("--set", "expert.rank=8"), 2, "set lora.rank"),
        (("--set", "rank"), 2, "KEY=VALUE"),
        (("--namespace", "../x"), 2, "namespace"),
        (("--model", "http://localhost:1/v1"), 2, "needs the weights"),
        (("--max-steps", "0"), 2, "max-steps"),
        (("refresh",), 2, "refresh"),
    ],
)
def test_bad_arguments(tmp_path: Path, args: tuple[str, ...], code: int, words: str) -> None:
    home = make_home(tmp_path / "home", edited())
    result = run("--home", home.root, *args)
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_no_usable_feedback(tiny_model_path: Path, recipe: Path, tmp_path: Path) -> None:
    silent = [one.model_copy(update={"feedback": []}) for one in edited(3)]
    home = make_home(tmp_path, silent)
    result = run("--home", tmp_path, "--model", tiny_model_path, "--recipe", recipe)
    assert result.exit_code == 6
    assert read_current(home) is None
    assert not list(home.work.glob("refresh-*"))


def test_a_release_without_a_module_binds_a_home_to_no_model(
    tiny_model_path: Path, recipe: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", edited())
    args = ("--home", home.root, "--recipe", recipe, "--max-steps", 1)
    assert run(*args, "--model", tiny_model_path).exit_code == 0
    first, other = read_current(home), make_tiny_model(tmp_path / "other", seed=5)
    assert first is not None and not first.manifest.adapters
    assert "logs drain --rebuild" in run(*args, "--model", other).stderr  # of the index's vectors
    words = ["logs", "drain", "--rebuild", "--home", str(home.root), "--model", str(other)]
    assert CliRunner().invoke(app, words).exit_code == 0
    again = run(*args, "--model", other)
    assert again.exit_code == 0, again.stderr
    found = read_current(home)
    assert found is not None and found.id != first.id


def test_a_second_refresh_is_refused_before_anything_is_loaded(
    recipe: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", edited())
    with refresh_lock(home, "as a refresh does"):
        result = run("--home", home.root, "--recipe", recipe)
    assert result.exit_code == 8 and "one runs at a time" in result.stderr
    assert "load" not in result.stderr


def test_chinese_logs_and_english_prompts(tiny_model_path: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path, edited(6, "请用列表", language="zh"))
    result = run("--home", tmp_path, "--model", tiny_model_path, "--recipe", "bundled")
    assert result.exit_code == 6
    assert "is in zh" in result.stderr
    assert "--model NAME" in result.stderr
    assert read_current(home) is None


def test_a_home_of_another_model(tiny_model_path: Path, recipe: Path, tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", edited())
    args = ("--home", home.root, "--recipe", recipe, "--max-steps", 1)
    args = (*args, "--set", "verify.level=none", "--set", "verify.win_rate=0")
    assert run(*args, "--model", tiny_model_path).exit_code == 0
    kept = read_current(home)
    assert kept is not None and kept.manifest.adapters
    other = make_tiny_model(tmp_path / "other", seed=5)
    result = run(*args, "--model", other)
    assert result.exit_code == 5
    assert "belongs to another base model" in result.stderr
    assert f"made for {str(tiny_model_path)!r}, and this is {str(other)!r}" in result.stderr
    assert "load" not in result.stderr and "settings" not in result.stderr  # nothing was begun
    planned = run(*args, "--model", other, "--dry-run")
    assert planned.exit_code == 5 and "belongs to another base model" in planned.stderr
    unreachable = run(*args, "--model", "nobody/has-this")
    assert unreachable.exit_code == 4  # no release of the bundled model: loading has to tell
    assert kept is not None
    assert read_current(home).id == kept.id  # type: ignore[union-attr]


@pytest.fixture
def readonly_home() -> Iterator[Home]:
    """A home that this process may read and not write, whoever it runs as."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        home = make_home(Path(folder) / "home", edited())
        folders = [home.path, *(p for p in home.path.rglob("*") if p.is_dir())]
        for path in folders:
            path.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield home
        finally:
            if root:
                os.seteuid(0)
            for path in folders:
                path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_a_read_only_home(readonly_home: Home) -> None:
    before = sorted(readonly_home.path.rglob("*"))
    result = run("--home", readonly_home.root)
    assert result.exit_code == 3
    assert "can't be written" in result.stderr
    assert sorted(readonly_home.path.rglob("*")) == before


def hears_ctrl_c() -> None:
    """In the child: a test run started in the background ignores SIGINT, and hands that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_then_the_same_call_again(
    tiny_model_path: Path, recipe: Path, tmp_path: Path
) -> None:
    home = make_home(tmp_path / "home", edited(24, "please be brief"))
    call = [sys.executable, "-m", "langchain_uno.train", "--home", str(home.root)]
    call += ["--model", str(tiny_model_path), "--recipe", str(recipe), "--max-steps", "1", "--json"]
    process = subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hears_ctrl_c,
    )
    deadline = time.monotonic() + 300
    while not list(home.work.glob("refresh-*/snapshot.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "goes on from there" in stderr
    assert "Traceback" not in stderr
    assert stdout == ""
    assert read_current(home) is None
    result = run(*call[3:])
    assert result.exit_code == 0, result.stderr
    assert read_current(home) is not None


def test_a_homes_own_settings(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert load_settings(home) == HomeSettings()
    home.settings.write_text("[recipe.lora]\nrank = 8\n[logs]\nretention_days = 30\n")
    assert load_settings(home).recipe == {"lora": {"rank": 8}}
    assert load_settings(home).logs.retention_days == 30
    make_home(tmp_path, edited(2))
    for text, complaint in (
        ("[recipe", "not valid TOML"),
        ("[logs]\nretention_days = -1\n", "bad value at 'logs.retention_days'"),
        ("[logs]\nchrome = 1\n", "bad value at 'logs.chrome'"),
        ("recipe = 1\n", "bad value at 'recipe'"),
        ("[recipe.expert]\nrank = 8\n", "expert.rank: set lora.rank"),
        ("[recipe]\nremind = true\n", str(home.settings)),
    ):
        home.settings.write_text(text)
        result = run("--home", tmp_path)
        assert result.exit_code == 2
        assert complaint in result.stderr
