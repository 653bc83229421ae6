"""A training that was killed goes on from where it was, to the very same weights.

Reported of other tools: atomantic/PortOS #1251 (a killed LoRA training was a total loss),
tensorpack/tensorpack #282 (a resumed run that is not the continuation), nyu-mll/jiant #169 (a run
that was killed while its checkpoint was written).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from langchain_uno.errors import InputError
from langchain_uno.models import training_state
from langchain_uno.records import Message, PreferencePair, RatedAnswer
from langchain_uno.trainers import common
from langchain_uno.trainers.common import OnStep, TrainSettings
from langchain_uno.trainers.critic import CriticExample, train_critic
from langchain_uno.trainers.expert import train_expert

SETTINGS = TrainSettings(
    rank=4, dropout=0.1, learning_rate=3e-3, epochs=3, batch_size=4, max_length=200
)
Train = Callable[[Path, "OnStep | None"], list[Path]]


def expert(tiny: tuple[Any, Any], settings: TrainSettings, seed: int = 1) -> Train:
    pairs = [
        PreferencePair(
            run_id=str(i),
            messages=[Message(role="user", content=f"Which number, {i}?")],
            chosen=f"- no. {i}\n- ok",
            rejected=f"well, it is no. {i}",
        )
        for i in range(10)
    ]
    return lambda out, on_step: train_expert(*tiny, pairs, out, settings, seed, on_step)


def thumbs(tiny: tuple[Any, Any], settings: TrainSettings, seed: int = 1) -> Train:
    rated = [
        RatedAnswer(
            run_id=str(i),
            messages=[Message(role="user", content=f"Which number, {i}?")],
            answer=f"- no. {i}\n- ok" if i % 2 else f"well, it is no. {i}",
            liked=i % 2 == 1,
        )
        for i in range(10)
    ]
    return lambda out, on_step: train_expert(*tiny, rated, out, settings, seed, on_step)


def critic(tiny: tuple[Any, Any], settings: TrainSettings, seed: int = 1) -> Train:
    examples = [
        CriticExample(
            prompt=[Message(role="user", content=f"Look at draft {i}.")],
            completion=f"1. Name {i}.",
        )
        for i in range(12)
    ]
    return lambda out, on_step: [train_critic(*tiny, examples, out, settings, seed, on_step)]


def weights(epochs: list[Path]) -> list[tuple[str, bytes]]:
    return [(e.name, (e / "adapter_model.safetensors").read_bytes()) for e in epochs]


def killed_at(step: int, train: Train, out: Path) -> None:
    def die(done: int, of: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(out, die)


@pytest.mark.parametrize("made", [expert, pytest.param(thumbs, marks=pytest.mark.slow), critic])
def test_killed_at_any_step_it_ends_with_the_same_weights(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any
) -> None:
    train: Train = made(tiny, SETTINGS)
    steps: list[int] = []
    expected = weights(train(tmp_path / "whole", lambda done, of: steps.append(done)))
    assert len(steps) == 9
    monkeypatch.setattr(training_state, "EVERY_S", 0.0)
    for step in (2, 3, 4, 9):  # within an epoch, at its last step, at the next one's first
        out = tmp_path / str(step)
        killed_at(step, train, out)
        heard: list[int] = []
        made_again = train(out, lambda done, of, heard=heard: heard.append(done))
        assert weights(made_again) == expected, step
        # The step at which it died was done, and not yet kept.
        assert heard == list(range(step, 10))
        assert sorted(p.name for p in out.iterdir()) == sorted(n for n, _ in expected)
        assert not list(out.rglob("*.bin")) and not list(out.rglob("*.pt*"))


@pytest.mark.parametrize(("made", "again"), [(expert, 5), (thumbs, 1), (critic, 5)])
def test_out_of_memory_is_answered_by_fewer_examples_at_a_time(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Any, again: int
) -> None:
    """The training goes on from its state; thumbs, which get other neighbours, begin again."""
    monkeypatch.setattr(training_state, "EVERY_S", 0.0)
    forward, refused, room, heard = tiny[0].model.forward, [0], [99], []

    def small(*args: Any, **kwargs: Any) -> Any:
        if len(kwargs["input_ids"]) > room[0]:
            refused[0] += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    def shrink(done: int, of: int) -> None:
        heard.append(done)
        room[0] = 2 if done == 4 else room[0]

    monkeypatch.setattr(tiny[0].model, "forward", small, raising=False)
    epochs = made(tiny, SETTINGS)(tmp_path / "out", shrink)
    assert heard == [*range(1, 5), *range(again, 10)]
    assert epochs and all((e / "adapter_model.safetensors").is_file() for e in epochs)
    assert not list((tmp_path / "out").glob("*state*"))
    before = refused[0]
    made(tiny, SETTINGS, 2)(tmp_path / "next", None)
    assert refused[0] == before > 0, "the next training begins with what fits"


def test_of_epochs_that_are_not_evaluated_a_state_is_kept_too(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine epochs of a step, of which every third is evaluated."""
    settings = SETTINGS.model_copy(update={"batch_size": 12, "min_steps": 9})
    train = critic(tiny, settings)
    expected = weights(train(tmp_path / "whole", None))
    monkeypatch.setattr(training_state, "EVERY_S", 0.0)
    killed_at(6, train, tmp_path / "out")
    heard: list[int] = []
    assert weights(train(tmp_path / "out", lambda done, of: heard.append(done))) == expected
    assert heard[0] == 6


def test_steps_without_numbers_are_counted_over_a_kill(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of nine steps three have none, before and after the kill: a quarter is too many."""
    before = common.Watcher.on_pre_optimizer_step

    def spoil(self: Any, args: Any, state: Any, control: Any, **with_: Any) -> None:
        if state.global_step in (1, 3, 7):
            next(p for p in with_["model"].parameters() if p.grad is not None).grad[0, 0] = math.nan
        before(self, args, state, control, **with_)

    monkeypatch.setattr(common.Watcher, "on_pre_optimizer_step", spoil)
    monkeypatch.setattr(training_state, "EVERY_S", 0.0)
    train = expert(tiny, SETTINGS)
    killed_at(6, train, tmp_path)
    with pytest.raises(InputError, match="3 steps had gradients that are no numbers"):
        train(tmp_path, None)


def test_killed_again_and_again_it_comes_to_its_end(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = expert(tiny, SETTINGS)
    expected = weights(train(tmp_path / "whole", None))
    monkeypatch.setattr(training_state, "EVERY_S", 0.0)
    for step in (2, 5, 9):
        killed_at(step, train, tmp_path / "out")
    assert weights(train(tmp_path / "out", None)) == expected


@pytest.mark.slow
def test_states_of_another_training_or_cut_short_count_for_nothing(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = expert(tiny, SETTINGS)
    expected = weights(train(tmp_path / "whole", None))
    monkeypatch.setattr(training_state, "EVERY_S", 0.0)
    others = [
        expert(tiny, SETTINGS, seed=2),
        expert(tiny, SETTINGS.model_copy(update={"learning_rate": 1e-3})),
    ]
    for n, other in enumerate(others):
        killed_at(5, other, tmp_path / str(n))
        heard: list[int] = []
        made = train(tmp_path / str(n), lambda done, of, heard=heard: heard.append(done))
        assert weights(made) == expected and heard[0] == 1
    for n, damage in enumerate((lambda p: p.write_bytes(p.read_bytes()[:-9]), Path.unlink)):
        for name in ("optimizer.safetensors", "rest.json"):
            out = tmp_path / f"{n}-{name}"
            killed_at(5, train, out)
            [state] = out.glob("state-*")
            damage(state / name)
            assert weights(train(out, None)) == expected


def test_a_short_training_writes_no_state(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    killed_at(5, expert(tiny, SETTINGS), tmp_path)
    assert not list(tmp_path.glob("*state-*"))
