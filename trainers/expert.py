"""Stage 6: an Expert LoRA, trained by TRL on pairs (DPO + SFT) or on thumbs (KTO + SFT).

    train_expert(model, tokenizer, examples, out, settings, seed=0)   # -> [out/epoch-1, ...]

The expert answers a cluster's queries directly. Of pairs its loss is half DPO (sigmoid: the chosen
answer above the logged one, relative to the base model) + half SFT (the chosen answer as it
stands). Of rated answers KTO (arXiv 2402.01306) takes DPO's place: a liked answer becomes likelier
than the base model has it, a disliked one less likely, and neither needs a partner. SFT is on liked
answers then. Every epoch leaves an adapter folder that plain ``PeftModel.from_pretrained`` loads;
which of them ships, if any, is the verifier's business.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from langchain_uno.errors import InputError
from langchain_uno.records import PreferencePair, RatedAnswer, digest_of
from langchain_uno.trainers import common
from langchain_uno.trainers.common import OnStep, TrainSettings

LOSS_WEIGHTS = (0.5, 0.5)
"""Of DPO and of SFT (the authors'); of KTO and of SFT. KTO alone loses facts: disliked answers,
which it makes less likely, have them too (lab/experiments.md)."""
BETA = 0.1
"""How strongly DPO and KTO are held to the base model (the authors', and KTO's)."""


@common.within_memory
def train_expert(
    model: Any,
    tokenizer: Any,
    examples: Sequence[PreferencePair] | Sequence[RatedAnswer],
    out: Path,
    settings: TrainSettings,
    seed: int,
    on_step: OnStep | None = None,
    *,
    base_name: str | None = None,
) -> list[Path]:
    """Train an expert and return one adapter folder per epoch, first to last.

    Args:
        model: the raw transformers base model, on the device to train on; handed back
            bit-identical, without adapters, also when the training fails or is interrupted.
        tokenizer: its tokenizer, with a chat template.
        examples: what to learn, all of one kind. A weight w makes w copies on average (see
            :func:`common.copies`). Examples longer than ``settings.max_length`` tokens are left
            out: a cut answer teaches cutting.
        out: folder for the epochs. A training of the same that was killed goes on there; epochs of
            any other are removed.
        settings: ``TrainSettings.of(recipe, "expert")``. The dropout is that of the LoRA layers.
        seed: of initial weights, order and copies; same seed, same adapters on the same machine.
        on_step: is told of (steps done, steps in all).
        base_name: what the adapters name as their base model; by default the model's own name.

    Raises:
        InputError: no example is left to train on, or all ratings that are left are alike.
    """
    # 1. Examples become tokens: the prompt as it is served, answers with the end of turn.
    end = common.turn_end(tokenizer)
    rows: list[dict[str, Any]] = []
    weights: list[float] = []
    for example in examples:
        prompt = common.prompt_ids(tokenizer, example.messages)
        answers = {
            name: common.completion_ids(tokenizer, answer, end)
            for name, answer in _answers(example).items()
        }
        if len(prompt) + max(map(len, answers.values())) <= settings.max_length:
            liked = {"label": example.liked} if isinstance(example, RatedAnswer) else {}
            rows.append({"prompt_ids": prompt, **answers, **liked})
            weights.append(example.weight)
    left = len(rows)
    rows = [
        row for row, n in zip(rows, common.copies(weights, seed), strict=True) for _ in range(n)
    ]
    rated = bool(examples) and isinstance(examples[0], RatedAnswer)
    what = "thumb" if rated else "pair"
    common.check_examples(what, "an expert", len(examples), left, rows, settings.max_length)

    # 2. What the loss needs besides.
    at_once = common.at_once_of(model, rows, settings)
    options: dict[str, Any] = {
        "beta": BETA,
        # TRL would switch off the LoRA layers' dropout (and the base model's, for good)
        "disable_dropout": False,
    }
    trainer: tuple[Any, Any] = (_ByPairs, DPOConfig)
    if rated:
        trainer = (_ByThumbs, KTOConfig)
        options |= _thumb_options(rows, at_once, settings.batch_size)
        _add_neighbours(rows, options["per_device_train_batch_size"], seed)
    else:
        options |= {"loss_type": ["sigmoid", "sft"], "loss_weights": list(LOSS_WEIGHTS)}

    # 3. The training: TRL's trainer on a fresh PEFT LoRA. Every epoch leaves an adapter.
    name = base_name or str(model.name_or_path)

    def keep(epoch: int, adapted: Any) -> None:
        folder = out / f"epoch-{epoch}"
        saved.append(common.save_adapter(adapted, folder, name, settings.strength))

    digest = digest_of(rows, settings, seed)
    watcher = common.Watcher(out, digest, on_step=on_step, on_epoch=keep)
    saved = [out / f"epoch-{n}" for n in range(1, watcher.epochs + 1)]
    with common.trained(*trainer, options, model, tokenizer, settings, seed, rows, watcher):
        return saved


def _answers(example: PreferencePair | RatedAnswer) -> dict[str, str]:
    """Return an example's answers under the names that TRL has for them."""
    if isinstance(example, RatedAnswer):
        return {"completion_ids": example.answer}
    return {"chosen_ids": example.chosen, "rejected_ids": example.rejected}


def _thumb_options(
    rows: Sequence[Mapping[str, Any]], at_once: int, batch_size: int
) -> dict[str, Any]:
    """Return what KTO needs: two examples at once at least, and weights for both directions.

    Thumbs up and down weigh the same on the whole, however many there are of each (the paper wants
    a ratio of 1 to 4/3), and a thumb weighs 1 on average.

    Raises:
        InputError: there is one direction only.
    """
    ups = sum(row["label"] for row in rows)
    downs = len(rows) - ups
    if not ups or not downs:
        raise InputError(
            f"There are {ups} thumbs up and {downs} down to train an expert on: it takes both."
        )
    together = max(2, at_once)  # the reference point is the mean over the others' answers
    return {
        "desirable_weight": len(rows) / (2 * ups),
        "undesirable_weight": len(rows) / (2 * downs),
        "per_device_train_batch_size": together,
        "gradient_accumulation_steps": math.ceil(batch_size / together),
    }


def _add_neighbours(rows: list[dict[str, Any]], together: int, seed: int) -> None:
    """Shuffle the rows, and give each its neighbour's answer, within those that go together.

    The likelihood of such answers that answer something else is KTO's reference point. TRL reads
    the rows in their order, so that those that were paired here meet.
    """
    random.Random(seed).shuffle(rows)
    for start in range(0, len(rows), together):
        some = rows[start : start + together]
        for row, neighbour in zip(some, [some[-1], *some[:-1]], strict=True):
            row["KL_completion_ids"] = neighbour["completion_ids"]


class _WithReference(common.QuietTrainer):
    """A trainer of TRL that is told that the data is tokenised, and kept from writing."""

    reference: tuple[str, str]
    """The names of the reference log-probabilities that TRL computes for a row."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def __init__(self, *args: Any, **named: Any) -> None:
        """Make TRL's trainer, and ask the base model once an example for its log-probabilities."""
        # TRL's own way hashes the whole model and switches the adapter off and on for each batch.
        super().__init__(*args, **named)
        trainer: Any = self
        rows, at_once = trainer.train_dataset.to_list(), trainer.args.per_device_train_batch_size
        longest_first = sorted(rows, key=common.padded, reverse=True)
        with trainer.model.disable_adapter():
            trainer.ref_model = trainer.model
            for start in range(0, len(rows), at_once):
                some = longest_first[start : start + at_once]
                batch = trainer._prepare_inputs(trainer.data_collator(some))
                found = trainer.compute_ref_log_probs(trainer.model, batch)
                for row, *both in zip(some, *(one.tolist() for one in found), strict=True):
                    row.update(zip(self.reference, both, strict=True))
            trainer.ref_model = None
        trainer.train_dataset = Dataset.from_list(rows)
        trainer.precompute_ref_logps = True


class _ByPairs(_WithReference, DPOTrainer):  # type: ignore[misc, unused-ignore]
    reference = ("ref_chosen_logps", "ref_rejected_logps")


class _ByThumbs(_WithReference, KTOTrainer):  # type: ignore[misc, unused-ignore]
    reference = ("ref_logps", "ref_KL_logps")

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        """Return KTO's loss and SFT's, which expects the mean over all liked answers."""
        trainer: Any = super()
        by_thumbs, sft = LOSS_WEIGHTS
        loss = by_thumbs * trainer._compute_loss(model, inputs, return_outputs)
        liked = inputs["label"].bool()
        if not liked.any():
            return loss
        ids, mask = inputs["input_ids"][liked], inputs["completion_mask"][liked]
        found = model(
            input_ids=ids,
            attention_mask=inputs["attention_mask"][liked],
            labels=ids.masked_fill(mask == 0, -100),
            use_cache=False,
            fused_lm_head=True,
        ).log_probs
        each = -found.sum(-1) / mask.sum(-1)
        # A batch has as many liked answers as it happens to have; all have a weight of n / (2 ups).
        return loss + sft * 2 * self.desirable_weight * each.sum() / len(liked)
