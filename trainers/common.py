"""What the LoRA trainers share: borrowing the base model, turning chats into tokens, keeping quiet.

Training tokens are made *by the very code that serves*: the prompt is what
:func:`langchain_uno.models.chat_format.render` gives the engine, the completion is the answer and
the template's end of turn. TRL's own conversational path would render prompt and answer together,
which teaches a newline after the end of turn and, with templates that treat the last turn apart
(Qwen3's thinking block), a context that serving never shows.
"""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from datasets import Dataset
from jinja2.exceptions import TemplateError
from peft import LoraConfig, get_peft_model
from torch.nn.utils import get_total_norm
from transformers import PrinterCallback, TrainerState
from trl.trainer import utils

from langchain_uno.errors import InputError
from langchain_uno.models.chat_format import render
from langchain_uno.models.lending import borrowed
from langchain_uno.models.training_state import Keeper, Resumable
from langchain_uno.recipe import ExpertSettings, LoraSettings, Recipe
from langchain_uno.records import Message

P = ParamSpec("P")
R = TypeVar("R")
OnStep = Callable[[int, int], None]
"""Progress of a training: optimiser steps done, and in all."""


_log = logging.getLogger(__name__)
_trl: Any = utils
_LOWER = "lower expert.learning_rate, or critic.learning_rate (--set)."

BIG = 100_000_000
"""Parameters from which the CPU is no faster with several examples at a time."""
TOGETHER = 8
"""Most examples that go through a model together on the CPU; on a GPU as many as fit."""
LOST = 0.25
"""Share of steps without numbers from which a training has failed."""
ROOM = 2 * 2**30
"""Bytes of activations that a step may keep on the CPU."""
SHARE = 0.8
"""Part of a GPU's free memory that a step may fill."""
_too_many: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
"""Tokens that were too many at once for a model on its device."""
MAX_GRAD_NORM = 1.0
"""The authors'."""
ALPHA = 2
"""LoRA's alpha, as a multiple of the rank (the authors')."""
STRENGTH = 0.85
"""Share of an expert's change to the base model that is kept where ``recipe.min_kept`` asks for it.
A model between the base and the trained one has learnt the task and unlearnt less (arXiv
2109.01903). Two fifths of the lost facts come back, and one point of met wishes is lost
(lab/experiments.md)."""


class TrainSettings(ExpertSettings, LoraSettings):
    """What one training needs of a recipe."""

    max_steps: int | None = None
    """Cuts the training short, also below ``min_steps``."""
    strength: float = 1.0
    """Share of its change to the base model that a saved adapter has."""

    @classmethod
    def of(
        cls, recipe: Recipe, kind: Literal["expert", "critic"], max_steps: int | None = None
    ) -> TrainSettings:
        """Return the settings of an expert or a critic."""
        own = recipe.expert if kind == "expert" else recipe.critic
        same = own.model_dump(include=set(ExpertSettings.model_fields))
        strength = STRENGTH if kind == "expert" and recipe.min_kept > 0 else 1.0
        return cls(**recipe.lora.model_dump(), **same, max_steps=max_steps, strength=strength)


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the tokens of a prompt as the engine sees them."""
    # Without thinking, as the local engine has it.
    text = render(tokenizer, messages, template_kwargs={"enable_thinking": False})
    return text_ids(tokenizer, text)


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text as it is.

    Without the tokenizer's warning that it is too long for the model: what is too long is left out
    of training, and counted.
    """
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def turn_end(tokenizer: Any) -> list[int]:
    """Return the tokens that end an assistant's turn: what the template writes after the answer.

    That is the tokenizer's EOS for most models, and another special token for some (Gemma).
    """
    mark = "Xanswerx"
    tail = ""
    # Some templates read content as a list of parts, some want the user to have the last word.
    for in_parts, more in itertools.product((False, True), ((), ("q",))):
        said = [
            [{"type": "text", "text": text}] if in_parts else text for text in ("q", mark, *more)
        ]
        roles = itertools.cycle(("user", "assistant"))
        chat = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
        try:
            text = str(tokenizer.apply_chat_template(chat, tokenize=False))
        except (TemplateError, TypeError):
            continue
        if mark in text:
            tail = text.rpartition(mark)[2].strip()
            break
    ids = text_ids(tokenizer, tail) if tail else []
    return ids[:1] if ids and ids[0] in tokenizer.all_special_ids else [tokenizer.eos_token_id]


def completion_ids(tokenizer: Any, answer: str, end: Sequence[int]) -> list[int]:
    """Return the tokens of an answer with its end of turn.

    A control token that somebody wrote into an edited answer is plain text, and ends no turn.
    """
    ids = tokenizer(answer, add_special_tokens=False, verbose=False, split_special_tokens=True)
    return [*ids["input_ids"], *end]


def copies(weights: Sequence[float], seed: int) -> list[int]:
    """Return how often each example goes into the training set, given its weight.

    Systematic resampling: example i gets floor(w) or ceil(w) copies, w on average over seeds;
    weight 1 is always one copy, weight 0 or less none. It needs no change to TRL's loss.
    """
    ladder = np.concatenate([[0.0], np.cumsum(np.maximum(np.asarray(weights, dtype=float), 0.0))])
    start = float(np.random.default_rng(seed).random())
    # rounded, so that 0.1 + 0.2 does not lose an example to the last bit
    rungs = np.floor(np.round(ladder + start, 9)).astype(int)
    return [int(n) for n in np.diff(rungs)]


def plan_epochs(n_examples: int, settings: TrainSettings) -> tuple[int, int]:
    """Return (epochs, optimiser steps in all) for a training set.

    Epochs are added to ``settings.epochs`` until ``min_steps`` is reached (small clusters learn by
    steps, not by epochs); ``max_steps`` then cuts.
    """
    per_epoch = math.ceil(n_examples / settings.batch_size)
    least = settings.min_steps if settings.max_steps is None else 0
    epochs = max(settings.epochs, math.ceil(least / per_epoch))
    steps = epochs * per_epoch
    if settings.max_steps is not None and settings.max_steps < steps:
        steps = max(1, settings.max_steps)
        epochs = math.ceil(steps / per_epoch)
    return epochs, steps


def lora_config(model: Any, settings: TrainSettings) -> LoraConfig:
    """Return PEFT's configuration: LoRA on every linear projection (the output layer excepted).

    The same layers as PEFT's "all-linear", which would write the full name of each of them into the
    adapter's configuration; servers other than PEFT expect the short names.
    """
    head = model.get_output_embeddings()
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    short = {name.rpartition(".")[2] for name, module in linear if module is not head}
    of_head = {name.rpartition(".")[2] for name, module in linear if module is head}
    return LoraConfig(
        r=settings.rank,
        lora_alpha=ALPHA * settings.rank,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if short & of_head else sorted(short),
        bias="none",
        task_type="CAUSAL_LM",
    )


def save_untrained(engine: Any, settings: TrainSettings, folder: Path) -> None:
    """Write an adapter as training begins with it: it adds nothing to the base model.

    Args:
        engine: a local engine; its model is as before afterwards.
        settings: whose rank it has.
        folder: where to.
    """
    with engine.exclusive() as (model, _):
        get_peft_model(model, lora_config(model, settings)).save_pretrained(str(folder))


def at_once_of(model: Any, rows: Sequence[Mapping[str, Any]], settings: TrainSettings) -> int:
    """Return how many examples go through the model together.

    Args:
        model: the base model, on the device to train on.
        rows: what is trained, as tokens.
        settings: whose batch is made of such parts.
    """
    batch = settings.batch_size
    parts = [n for n in range(batch, 1, -1) if batch % n == 0]
    if next(model.parameters()).device.type == "cpu":
        most = 1 if sum(p.numel() for p in model.parameters()) >= BIG else TOGETHER
        return next((n for n in parts if n <= most and _together(model, rows, n) < math.inf), 1)
    return next((n for n in parts if fits(model, rows, n)), 1)


def fits(model: Any, rows: Sequence[Mapping[str, Any]], at_once: int) -> bool:
    """Whether the activations of a step fit into memory; else they are computed twice.

    Computing them twice takes half as much time again. Counted are, a token and a layer, 20 numbers
    of the layer's width and 6 of its MLP's (measured on the bundled model and SmolLM2: 0.9 of
    that). A GPU computes in bfloat16; with weights in float32 it keeps copies of both kinds.

    Args:
        model: the base model, on the device to train on.
        rows: what is trained, as tokens.
        at_once: rows that go through the model together.
    """
    config = model.config.get_text_config()
    weights, width = next(model.parameters()), config.hidden_size
    mlp = getattr(config, "intermediate_size", None) or 4 * width
    numbers = config.num_hidden_layers * (20 * width + 6 * mlp)
    tokens = _together(model, rows, at_once)
    if weights.device.type != "cuda":
        return bool(4 * numbers * tokens <= ROOM)
    torch.cuda.empty_cache()  # what generation left to the allocator is free too
    # A LoRA of rank 64 with its moments is as large as 256 tokens; the output layer takes 2 GiB.
    need = max(2, weights.element_size()) * numbers * (tokens + 256) + 2**31
    return bool(need <= SHARE * torch.cuda.mem_get_info(weights.device)[0])


def _together(model: Any, rows: Sequence[Mapping[str, Any]], at_once: int) -> float:
    """Return the tokens that so many rows make at most; infinity where that was too much before."""
    tokens = min(at_once, len(rows)) * max(map(padded, rows))
    return tokens if tokens < _too_many.get(model, math.inf) else math.inf


def within_memory(train: Callable[P, R]) -> Callable[P, R]:
    """Answer out of memory by fewer examples at a time, from the training's kept state on."""

    @functools.wraps(train)
    def again(*given: P.args, **named: P.kwargs) -> R:
        while True:
            try:
                return train(*given, **named)
            except torch.OutOfMemoryError:
                _log.warning("Out of memory: the training goes on with fewer examples at a time.")
            gc.collect()  # the trainer that failed refers to itself

    return again


def padded(row: Mapping[str, Any]) -> int:
    """Return the tokens of a row's texts, all as long as the longest."""
    prompt = len(row.get("prompt_ids", ()))
    texts = [len(row[name]) for name in row if name.endswith("_ids") and name != "prompt_ids"]
    return len(texts) * (prompt + max(texts))


def shared_arguments(
    model: Any, out: Path, settings: TrainSettings, seed: int, epochs: int, at_once: int
) -> dict[str, Any]:
    """Return the ``TrainingArguments`` that all trainings share, fit for the model's device."""
    device = next(model.parameters()).device
    return {
        "output_dir": str(out),
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": math.ceil(settings.batch_size / at_once),
        "num_train_epochs": epochs,
        "max_steps": settings.max_steps if settings.max_steps is not None else -1,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
        "adam_beta1": 0.9,
        "adam_beta2": 0.98,
        "weight_decay": 0.0,
        "max_grad_norm": MAX_GRAD_NORM,
        "max_length": settings.max_length,
        "bf16": device.type == "cuda" and torch.cuda.is_bf16_supported(),
        "use_cpu": device.type == "cpu",
        "seed": seed,
        "data_seed": seed,
        # nothing leaves the process: no trackers, no hub, no checkpoints with pickled state (what
        # a training needs to go on is kept by models/training_state.py)
        "report_to": "none",
        "push_to_hub": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        # all data is in memory already
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device.type == "cuda",
        "remove_unused_columns": False,
    }


def check_examples(
    what: str, kind: str, given: int, left: int, training: Sized, max_length: int
) -> None:
    """Say how many examples were left out of a training.

    Args:
        what: an example's name.
        kind: "an expert" or "a critic".
        given: how many there were.
        left: how many are short enough and weigh something.
        training: the rows that they make.
        max_length: in tokens.

    Raises:
        InputError: there are no rows.
    """
    if left < given:
        message = "%d of %d %ss are longer than %d tokens or weigh nothing and were left out"
        _log.warning(message, given - left, given, what, max_length)
    if not training:
        raise InputError(
            f"There is no {what} to train {kind} on ({given} given, longest allowed {max_length} "
            "tokens, weights above 0 needed)."
        )


class QuietTrainer(Resumable):
    """For a trainer of TRL: goes on from a kept state, and is kept from phoning anywhere."""

    def _send_telemetry(self) -> None:
        """Do nothing: what a deployment trains is nobody else's business."""


@contextmanager
def trained(
    trainer_type: Any,
    config_type: Any,
    options: Mapping[str, Any],
    model: Any,
    tokenizer: Any,
    settings: TrainSettings,
    seed: int,
    training: Sequence[Mapping[str, Any]],
    watcher: Watcher,
    evaluation: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Any]:
    """Train a fresh PEFT LoRA over the borrowed base model, from the start or from a kept state.

    Args:
        trainer_type: TRL's trainer, with :class:`QuietTrainer`.
        config_type: its configuration.
        options: of the configuration, on top of the shared ones.
        model: the base model; handed back at the end of the block.
        tokenizer: its tokenizer.
        settings: of the training.
        seed: of the training.
        training: the rows.
        watcher: is told of steps and epochs, and keeps the state; none is left after the block. Its
            folder is emptied unless a state is gone on from.
        evaluation: held-out rows.

    Yields:
        The trained PEFT model.

    Raises:
        InputError: the device lacks the memory for one example at a time; for more of them
            OutOfMemoryError (see :func:`within_memory`).
    """
    out = watcher.out
    if watcher.checkpoint is None:
        clear_epochs(out)
        watcher.clear()
    out.mkdir(parents=True, exist_ok=True)
    epochs, _ = plan_epochs(len(training), settings)
    with borrowed(model, tokenizer), _answers_scored_alone():
        at_once = at_once_of(model, training, settings)
        given = {**shared_arguments(model, out, settings, seed, epochs, at_once), **options}
        kept = fits(model, training, given["per_device_train_batch_size"])
        arguments = config_type(**given, activation_checkpointing=not kept)
        if arguments.n_gpu > 1:  # Trainer would replicate the model on all of them
            arguments._n_gpu = 1
        try:
            trainer = trainer_type(
                model=model,
                args=arguments,
                train_dataset=Dataset.from_list(training),
                eval_dataset=Dataset.from_list(evaluation) if evaluation else None,
                processing_class=tokenizer,
                peft_config=lora_config(model, settings),
            )
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(watcher)
            trainer.train(resume_from_checkpoint=watcher.checkpoint)
        except torch.OutOfMemoryError as error:
            if at_once > 1 or kept:
                _too_many[model] = _together(model, training, at_once)
                raise
            raise InputError(
                "The device lacks the memory for this training: lower expert.max_length, "
                "critic.max_length or lora.rank (--set)."
            ) from error
        yield trainer.model
    watcher.clear()


@contextmanager
def _answers_scored_alone() -> Iterator[None]:
    """Leave prompts and padding out of the output layer; TRL does so only where there is Triton."""
    before = _trl._use_triton
    _trl._use_triton = lambda _: True
    try:
        yield
    finally:
        _trl._use_triton = before


def clear_epochs(out: Path, but: Path | None = None) -> None:
    """Remove the adapters that a training left in ``out``, one excepted."""
    for folder in [*out.glob("epoch-*"), *out.glob(".epoch-*.part")]:
        if folder != but:
            shutil.rmtree(folder, ignore_errors=True)


def save_adapter(peft_model: Any, folder: Path, base_name: str, strength: float = 1.0) -> Path:
    """Write a PEFT adapter folder (safetensors) whole or not at all; return it.

    A ``strength`` below 1 makes its alpha smaller, so that it changes the base model by less.

    Raises:
        InputError: its weights are no numbers.
    """
    trained = [weights for weights in peft_model.parameters() if weights.requires_grad]
    if not bool(get_total_norm(trained).isfinite()):
        raise InputError(f"Its weights became no numbers: {_LOWER}")
    temp = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temp, ignore_errors=True)
    config = peft_model.peft_config["default"]
    config.base_model_name_or_path = base_name
    if strength < 1:
        config.lora_alpha = ALPHA * config.r * strength  # the model at hand goes on as it was
    config.target_modules = sorted(config.target_modules)  # a set would be written in any order
    peft_model.create_or_update_model_card = lambda _: None  # it takes as long as all the rest
    # With "auto", PEFT would ask the hub whether the vocabulary was changed.
    peft_model.save_pretrained(temp, safe_serialization=True, save_embedding_layers=False)
    shutil.rmtree(folder, ignore_errors=True)
    temp.rename(folder)
    return folder


@dataclass(eq=False)
class Watcher(Keeper):
    """Reports steps, and what happens at the end of each epoch (from 1); then keeps the state."""

    on_step: OnStep | None = None
    """Hears of optimiser steps."""
    on_epoch: Callable[[int, Any], None] | None = None
    """Hears of an epoch's end, with the PEFT model."""
    on_loss: Callable[[int, float, Any], None] | None = None
    """Hears of an epoch's held-out loss, with the PEFT model."""
    every: int = 1
    """Epochs from one evaluation to the next, counted from the last one back."""

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: Any, **with_: Any
    ) -> None:
        """Leave out a step whose gradients are no numbers, which would make all weights none.

        Raises:
            InputError: too many steps are.
        """
        moved = [weights for weights in with_["model"].parameters() if weights.grad is not None]
        if bool(get_total_norm([weights.grad for weights in moved]).isfinite()):
            return
        for weights in moved:
            weights.grad = None
        self.lost += 1
        if self.lost > LOST * state.max_steps:
            raise InputError(f"{self.lost} steps had gradients that are no numbers: {_LOWER}")

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **with_: Any) -> None:
        """Report an optimiser step."""
        if self.on_step is not None:
            self.on_step(state.global_step, state.max_steps)
        super().on_step_end(args, state, control, **with_)

    def on_epoch_end(self, args: Any, state: TrainerState, control: Any, **with_: Any) -> None:
        """Count an epoch; the evaluation comes after this."""
        self.epochs += 1
        if (math.ceil(args.num_train_epochs) - self.epochs) % self.every:
            control.should_evaluate = False
        if self.on_epoch is not None:
            self.on_epoch(self.epochs, with_["model"])
        super().on_epoch_end(args, state, control, **with_)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **with_: Any) -> None:
        """Report the held-out loss."""
        loss = with_["metrics"].get("eval_loss", math.nan)
        if self.on_loss is not None and math.isfinite(loss):
            self.on_loss(self.epochs, loss, with_["model"])
        super().on_evaluate(args, state, control, **with_)
