"""The critic trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from langchain_uno.errors import InputError
from langchain_uno.records import Message
from langchain_uno.trainers import common
from langchain_uno.trainers.common import TrainSettings
from langchain_uno.trainers.critic import CriticExample, _validates, train_critic

SETTINGS = TrainSettings(
    rank=8,
    dropout=0.0,
    learning_rate=5e-3,
    epochs=3,
    batch_size=4,
    max_length=200,
)


def example(i: int) -> CriticExample:
    return CriticExample(
        prompt=[Message(role="user", content=f"Draft {i}: it works.")],
        completion="1. Use bullets.\n2. Say thanks.",
    )


def loss(model: Any, tokenizer: Any, one: CriticExample) -> float:
    prompt = common.prompt_ids(tokenizer, one.prompt)
    completion = common.completion_ids(tokenizer, one.completion, common.turn_end(tokenizer))
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logs = model(ids).logits[0, :-1].log_softmax(-1)
    return -float(logs.gather(1, ids[0, 1:, None])[-len(completion) :].mean())


def test_a_critic_learns_and_its_best_epoch_is_kept(
    tiny: tuple[Any, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel

    model, tokenizer = tiny
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps: list[tuple[int, int]] = []
    best = train_critic(
        model,
        tokenizer,
        [example(i) for i in range(10)],
        tmp_path,
        SETTINGS,
        seed=0,
        on_step=lambda done, total: steps.append((done, total)),
        base_name="my/base",
    )
    assert capfd.readouterr() == ("", "")
    assert steps == [(n, 6) for n in range(1, 7)]  # 8 examples train, 2 choose the epoch
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == [best]
    assert best == tmp_path / "epoch-3"  # constant rules: later is better
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    unseen = example(99)
    base = loss(model, tokenizer, unseen)
    with common.borrowed(model, tokenizer):
        tuned = PeftModel.from_pretrained(model, str(best)).eval()
        assert loss(tuned, tokenizer, unseen) < base - 0.3


def test_of_added_epochs_a_few_are_looked_at(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    evaluated = common.Watcher.on_evaluate

    def look(self: common.Watcher, *args: Any, **more: Any) -> None:
        looked.append(self.epochs)
        evaluated(self, *args, **more)

    monkeypatch.setattr(common.Watcher, "on_evaluate", look)
    settings = SETTINGS.model_copy(update={"min_steps": 20})  # 2 steps an epoch, 3 epochs asked for
    best = train_critic(*tiny, [example(i) for i in range(10)], tmp_path, settings, seed=0)
    assert looked == [1, 4, 7, 10]
    assert best == tmp_path / "epoch-10"


def test_few_examples_keep_the_last_epoch(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = tiny
    best = train_critic(model, tokenizer, [example(i) for i in range(3)], tmp_path, SETTINGS, 0)
    assert best == tmp_path / "epoch-3"


def test_no_prompt_stands_on_both_sides() -> None:
    prompts = [(i // 3,) for i in range(60)]
    held = _validates(prompts, seed=1)
    assert sum(held) == 9  # 3 of 20 prompts, three rows each
    assert not {p for p, h in zip(prompts, held, strict=True) if h} & {
        p for p, h in zip(prompts, held, strict=True) if not h
    }
    assert not any(_validates([(i,) for i in range(5)], seed=1))


def test_nothing_to_train_on(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = tiny
    with pytest.raises(InputError, match="no example to train a critic on"):
        train_critic(model, tokenizer, [], tmp_path, SETTINGS, 0)
