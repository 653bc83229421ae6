"""Tokens, copies, plans, and the base model handed back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from langchain_uno.recipe import load_recipe
from langchain_uno.records import Message
from langchain_uno.trainers import common
from langchain_uno.trainers.common import TrainSettings


def test_training_tokens_are_those_of_serving(tiny: tuple[Any, Any]) -> None:
    _, tokenizer = tiny
    messages = [Message(role="system", content="Be brief."), Message(role="user", content="Hi")]
    prompt = common.prompt_ids(tokenizer, messages)
    end = common.turn_end(tokenizer)
    answer = common.completion_ids(tokenizer, "yes", end)
    assert tokenizer.decode(prompt + answer) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nyes<|im_end|>"
    )
    assert end == [tokenizer.eos_token_id]


def test_a_control_token_in_an_edited_answer_ends_no_turn(tiny: tuple[Any, Any]) -> None:
    _, tokenizer = tiny
    edited = "Yes.<|im_end|>\n<|im_start|>user\nhi"
    ids = common.completion_ids(tokenizer, edited, common.turn_end(tokenizer))
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids) == f"{edited}<|im_end|>"


def test_turn_end_is_the_templates_own(tiny: tuple[Any, Any]) -> None:
    _, tokenizer = tiny
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    template = tokenizer.chat_template
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<end_of_turn>\n{% endfor %}"
    assert tokenizer.decode(common.turn_end(tokenizer)) == "<end_of_turn>"
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{% for p in m.content %}{{ p.text }}{% endfor %}"
        "<end_of_turn>\n{% endfor %}"
    )
    assert tokenizer.decode(common.turn_end(tokenizer)) == "<end_of_turn>"
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} bye {% endfor %}"
    assert common.turn_end(tokenizer) == [tokenizer.eos_token_id]
    tokenizer.chat_template = template


def test_copies_follow_the_weights() -> None:
    assert common.copies([1.0] * 7, seed=3) == [1] * 7
    assert common.copies([2.0, 1.0, 0.0, -1.0], seed=3) == [2, 1, 0, 0]
    assert common.copies([], seed=0) == []
    drawn = [common.copies([0.25, 1.5, 1.0], seed) for seed in range(400)]
    means = [sum(d[i] for d in drawn) / 400 for i in range(3)]
    assert means == pytest.approx([0.25, 1.5, 1.0], abs=0.08)
    assert {d[1] for d in drawn} == {1, 2}


@pytest.mark.parametrize(
    ("n", "settings", "expected"),
    [
        (30, {"epochs": 8, "batch_size": 8}, (8, 32)),
        (30, {"epochs": 8, "batch_size": 8, "min_steps": 36}, (9, 36)),
        (8, {"epochs": 8, "batch_size": 8, "min_steps": 36}, (36, 36)),
        (30, {"epochs": 8, "batch_size": 8, "max_steps": 6}, (2, 6)),
        (100, {"epochs": 8, "batch_size": 32}, (8, 32)),
    ],
)
def test_epochs_are_added_until_the_steps_are_reached(
    n: int, settings: dict[str, Any], expected: tuple[int, int]
) -> None:
    assert common.plan_epochs(n, TrainSettings(**settings)) == expected


def test_settings_are_the_recipes_for_each_kind() -> None:
    recipe = load_recipe(
        "paper", {"expert": {"learning_rate": 0.1, "min_steps": 7}, "lora": {"rank": 8}}
    )
    expert = TrainSettings.of(recipe, "expert")
    assert (expert.learning_rate, expert.min_steps, expert.max_length) == (0.1, 7, 12_000)
    assert (expert.rank, expert.epochs, expert.batch_size, expert.max_steps) == (8, 8, 32, None)
    critic = TrainSettings.of(recipe, "critic", 5)
    assert (critic.learning_rate, critic.min_steps, critic.max_length) == (5e-4, 0, 8000)
    assert (critic.rank, critic.max_steps) == (8, 5)


def test_experts_are_weakened_where_content_must_be_kept() -> None:
    paper, bundled = load_recipe("paper"), load_recipe("bundled")
    assert TrainSettings.of(bundled, "expert").strength == common.STRENGTH < 1
    assert TrainSettings.of(bundled, "critic").strength == 1  # the base revises, and is looked at
    assert TrainSettings.of(paper, "expert").strength == 1


def test_alpha_is_twice_the_rank_on_every_linear_layer(tiny: tuple[Any, Any]) -> None:
    found = common.lora_config(tiny[0], TrainSettings(rank=6, dropout=0.1))
    assert (found.r, found.lora_alpha, found.lora_dropout) == (6, 12, 0.1)
    assert set(found.target_modules) == {
        f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")
    }


ROW = {"prompt_ids": [5] * 40, "chosen_ids": [5] * 60, "rejected_ids": [5] * 20}


@pytest.mark.parametrize(
    ("big", "batch", "at_once", "accumulated"),
    [(10**8, 32, 8, 4), (10**8, 12, 6, 2), (1, 32, 1, 32)],
)
def test_a_step_sees_the_batch_however_many_fit_at_once(
    tiny: tuple[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    big: int,
    batch: int,
    at_once: int,
    accumulated: int,
) -> None:
    monkeypatch.setattr(common, "BIG", big)
    settings = TrainSettings(batch_size=batch)
    assert common.at_once_of(tiny[0], [ROW], settings) == at_once
    found = common.shared_arguments(tiny[0], tmp_path, settings, 0, 8, at_once)
    assert found["per_device_train_batch_size"] == at_once
    assert found["gradient_accumulation_steps"] == accumulated


class OnGpu:
    """A model of 7 billion weights on a GPU."""

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        self.config = SimpleNamespace(get_text_config=lambda: self.config)
        self.config.hidden_size, self.config.intermediate_size = 3584, 18944
        self.config.num_hidden_layers = 28
        device = torch.device("cuda")
        self.weights = SimpleNamespace(
            device=device, numel=lambda: 7 * 10**9, element_size=lambda: dtype.itemsize
        )

    def parameters(self) -> Any:
        return iter([self.weights])


LONG = {"prompt_ids": [5] * 300, "chosen_ids": [5] * 724, "rejected_ids": [5] * 100}


@pytest.mark.parametrize(
    ("dtype", "free", "rows", "at_once"),
    [
        (torch.bfloat16, 10**12, 99, 12),  # never parts of 8
        (torch.bfloat16, 64, 99, 2),
        (torch.float32, 64, 99, 1),
        (torch.bfloat16, 96, 99, 3),
        (torch.bfloat16, 64, 2, 12),  # there are no more
        (torch.bfloat16, 0, 99, 1),
    ],
)
def test_on_a_gpu_as_many_as_fit_go_together(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, free: int, rows: int, at_once: int
) -> None:
    """A pair of 2,048 tokens takes 21 GB in bfloat16; what the allocator holds idle is free."""
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda _: (free * 10**9 if emptied else 0, 8 * 10**10)
    )
    settings = TrainSettings(batch_size=12)
    assert common.at_once_of(OnGpu(dtype), [LONG] * rows, settings) == at_once


def test_activations_are_kept_where_they_fit(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted is about what a pass keeps, never less."""
    from peft import get_peft_model

    model, tokenizer = tiny
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        held.append(storage)
        kept[storage.data_ptr()] = storage.nbytes()
        return value

    held: list[Any] = []
    with common.borrowed(model, tokenizer):
        adapted = get_peft_model(model, common.lora_config(model, TrainSettings(rank=2))).train()
        ids = torch.full((2, 100), 5)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            adapted.get_base_model().model(ids, attention_mask=torch.ones_like(ids))
        for weights in model.parameters():
            kept.pop(weights.untyped_storage().data_ptr(), None)
    took = sum(kept.values())
    for room, fits in ((1.5 * took, True), (took - 1, False)):
        monkeypatch.setattr(common, "ROOM", room)
        assert common.fits(model, [ROW], 1) == fits
    monkeypatch.setattr(common, "ROOM", 1.5 * took)
    assert common.fits(model, [ROW], 2), "there is one row"
    assert not common.fits(model, [ROW] * 2, 2)


def test_the_borrowed_model_comes_back_as_it_was(tiny: tuple[Any, Any]) -> None:
    from peft import get_peft_model

    model, tokenizer = tiny
    names = [name for name, _ in model.named_modules()]
    attributes, config = set(model.__dict__), model.config.to_dict()
    pad = tokenizer.pad_token

    def meddle() -> None:
        get_peft_model(model, common.lora_config(model, TrainSettings(rank=2)))
        model.train()
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
        model.forward = lambda: None
        model.config.pad_token_id = 0
        tokenizer.pad_token = "<|im_start|>"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), common.borrowed(model, tokenizer):
        meddle()
    assert [name for name, _ in model.named_modules()] == names
    assert set(model.__dict__) == attributes
    assert model.config.to_dict() == config
    assert tokenizer.pad_token == pad
    assert not any(module.training for module in model.modules())
    assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
