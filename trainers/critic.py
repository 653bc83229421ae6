"""Stage 8: a Critic LoRA, trained to say what users would want changed in a draft, by TRL's SFT.

    train_critic(model, tokenizer, examples, out, settings, seed=0)   # -> out/epoch-7, say

The prompt is query + draft, the completion the numbered rules that users' feedback gave; the loss
is on the completion alone. A part of the examples validates, and the epoch with the lowest loss
on it is kept. Where epochs were added to reach ``min_steps``, about ``lora.epochs`` of them are
looked at. Whether the critic helps is for the verifier to say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from langchain_uno.errors import InputError
from langchain_uno.records import Message, digest_of
from langchain_uno.trainers import common
from langchain_uno.trainers.common import OnStep, TrainSettings

EVAL_SHARE = 0.15
"""Part of the distinct prompts that validates: it chooses the epoch (none below 6 prompts)."""


class CriticExample(BaseModel):
    """One thing for a critic to learn: what to say about a draft."""

    model_config = ConfigDict(frozen=True)

    prompt: list[Message]
    """``prompts.critique_prompt(messages, draft, language)``: the same words as in serving."""
    completion: str
    """``prompts.critique_completion(rules)``."""
    weight: float = 1.0


@common.within_memory
def train_critic(
    model: Any,
    tokenizer: Any,
    examples: Sequence[CriticExample],
    out: Path,
    settings: TrainSettings,
    seed: int,
    on_step: OnStep | None = None,
    *,
    base_name: str | None = None,
) -> Path:
    """Train a critic and return the adapter folder of its best epoch, ``out/epoch-<n>``.

    Args:
        model: the raw transformers base model, on the device to train on; handed back
            bit-identical, without adapters, also when the training fails or is interrupted.
        tokenizer: its tokenizer, with a chat template.
        examples: what to learn. A weight w makes w copies on average (see :func:`common.copies`).
            Examples longer than ``settings.max_length`` tokens are left out.
        out: folder for the epochs. A training of the same that was killed goes on there; epochs of
            any other are removed. Only the best one is kept in the end.
        settings: ``TrainSettings.of(recipe, "critic")``.
        seed: of the validation part, initial weights, order and copies.
        on_step: is told of (steps done, steps in all).
        base_name: what the adapter names as its base model; by default the model's own name.

    Raises:
        InputError: no example is left to train on.
    """
    # 1. Examples become tokens; labels of -100 keep the prompt out of the loss.
    end = common.turn_end(tokenizer)
    rows: list[dict[str, list[int]]] = []
    prompts: list[tuple[int, ...]] = []
    weights: list[float] = []
    for example in examples:
        prompt = common.prompt_ids(tokenizer, example.prompt)
        completion = common.completion_ids(tokenizer, example.completion, end)
        if len(prompt) + len(completion) <= settings.max_length and example.weight > 0:
            rows.append(
                {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}
            )
            prompts.append(tuple(prompt))
            weights.append(example.weight)

    # 2. A part validates, by prompt, so that no prompt stands on both sides; then come the copies.
    validates = _validates(prompts, seed)
    evaluation = [row for row, held in zip(rows, validates, strict=True) if held]
    training = [
        row
        for row, n, held in zip(rows, common.copies(weights, seed), validates, strict=True)
        if not held
        for _ in range(n)
    ]
    common.check_examples(
        "example", "a critic", len(examples), len(rows), training, settings.max_length
    )

    # 3. The training: TRL's SFT trainer on a fresh PEFT LoRA. The epoch with the lowest validation
    # loss stays; without a validation part, the last.
    best: tuple[float, Path] | None = None
    name = base_name or str(model.name_or_path)

    def keep(epoch: int, loss: float, adapted: Any) -> None:
        nonlocal best
        if best is None or loss < best[0]:
            best = (loss, common.save_adapter(adapted, out / f"epoch-{epoch}", name))

    planned, _ = common.plan_epochs(len(training), settings)
    watcher = common.Watcher(
        out,
        digest_of(training, evaluation, settings, seed),
        lambda: {"best": best and [best[0], best[1].name]},
        on_step=on_step,
        on_loss=keep,
        every=max(1, planned // settings.epochs),
    )
    if found := watcher.notes.get("best"):
        best = (found[0], out / found[1])
    options = {
        "per_device_eval_batch_size": common.at_once_of(model, training, settings),
        "eval_strategy": "epoch" if evaluation else "no",
        "packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    with common.trained(
        *(_Trainer, SFTConfig, options, model, tokenizer, settings, seed),
        *(training, watcher, evaluation),
    ) as adapted:
        if not evaluation:
            keep(watcher.epochs, -math.inf, adapted)
        if best is None:
            raise InputError(
                "The critic's validation loss was never a number: lower its learning rate."
            )
    common.clear_epochs(out, but=best[1])
    return best[1]


def _validates(prompts: Sequence[tuple[int, ...]], seed: int) -> list[bool]:
    """Return which rows validate: all rows of a seeded share of the distinct prompts."""
    distinct = sorted(set(prompts))
    n = max(1, round(EVAL_SHARE * len(distinct))) if len(distinct) >= 6 else 0
    chosen = np.random.default_rng(seed).permutation(len(distinct))[:n]
    held = {distinct[i] for i in chosen}
    return [prompt in held for prompt in prompts]


class _Trainer(common.QuietTrainer, SFTTrainer):  # type: ignore[misc, unused-ignore]
    """TRL's trainer, kept quiet."""
