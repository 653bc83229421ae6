"""Stage 6: an Expert LoRA, trained on preference pairs with DPO + SFT by TRL.

    train_expert(model, tokenizer, pairs, out, settings, seed=0)   # -> [out/epoch-1, ...]

The expert answers a cluster's queries directly. Its loss is half DPO (sigmoid: the
chosen answer above the logged one, relative to the base model) + half SFT (the chosen
answer as it stands). Every epoch leaves an adapter folder that plain ``PeftModel.from_pretrained``
loads; which of them ships, if any, is the verifier's business.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from langchain_uno.errors import InputError
from langchain_uno.models.training_state import Keeper, Resumable, digest_of
from langchain_uno.records import PreferencePair
from langchain_uno.trainers import common
from langchain_uno.trainers.common import OnStep, TrainSettings

__all__ = ["train_expert"]

LOSS_WEIGHTS = (0.5, 0.5)
"""Of DPO and of SFT (the authors')."""
BETA = 0.1
"""How strongly DPO is held to the base model (the authors')."""
_log = logging.getLogger(__name__)


def train_expert(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[PreferencePair],
    out: Path,
    settings: TrainSettings,
    seed: int,
    on_step: OnStep | None = None,
    *,
    base_name: str | None = None,
    template_kwargs: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Train an expert and return one adapter folder per epoch, first to last.

    Args:
        model: the raw transformers base model, on the device to train on; handed back
            bit-identical, without adapters, also when the training fails or is interrupted.
        tokenizer: its tokenizer, with a chat template.
        pairs: what to learn. A weight w makes w copies on average (see :func:`common.copies`).
            Pairs longer than ``settings.max_length`` tokens are left out: a cut answer teaches
            cutting.
        out: folder for the epochs. A training of the same that was killed goes on there; epochs of
            any other are removed.
        settings: ``TrainSettings.of(recipe, "expert")``. The dropout is that of the LoRA layers.
        seed: of initial weights, order and copies; same seed, same adapters on the same machine.
        on_step: hears of (steps done, steps in all).
        base_name: what the adapters name as their base model; by default the model's own name.
        template_kwargs: extra arguments of the chat template, those that the engine serves with
            (``enable_thinking=False`` unless given, as there).

    Raises:
        InputError: no pair is left to train on.
    """
    # 1. Pairs become tokens: the prompt as it is served, both answers with the end of turn.
    end = common.turn_end(tokenizer)
    rows: list[dict[str, list[int]]] = []
    weights: list[float] = []
    for pair in pairs:
        row = {
            "prompt_ids": common.prompt_ids(tokenizer, pair.messages, template_kwargs),
            "chosen_ids": common.completion_ids(tokenizer, pair.chosen, end),
            "rejected_ids": common.completion_ids(tokenizer, pair.rejected, end),
        }
        longest = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        if len(row["prompt_ids"]) + longest <= settings.max_length:
            rows.append(row)
            weights.append(pair.weight)
    if len(rows) < len(pairs):
        _log.warning(
            "%d of %d pairs are longer than %d tokens and were left out",
            len(pairs) - len(rows),
            len(pairs),
            settings.max_length,
        )
    rows = [
        row for row, n in zip(rows, common.copies(weights, seed), strict=True) for _ in range(n)
    ]
    if not rows:
        raise InputError(
            f"There is no pair to train an expert on ({len(pairs)} given, longest allowed "
            f"{settings.max_length} tokens, weights above 0 needed)."
        )

    # 2. The training: TRL's DPO trainer on a fresh PEFT LoRA over the borrowed base model.
    epochs, _ = common.plan_epochs(len(rows), settings)
    out.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(out, digest_of(rows, settings, seed))
    if keeper.checkpoint is None:
        common.clear_epochs(out)
        keeper.clear()
    name = base_name or str(model.name_or_path)
    saved = [out / f"epoch-{n}" for n in range(1, keeper.epochs + 1)]
    with common.borrowed(model, tokenizer):
        arguments = DPOConfig(
            **common.shared_arguments(model, out, settings, seed, epochs),
            loss_type=["sigmoid", "sft"],
            loss_weights=list(LOSS_WEIGHTS),
            beta=BETA,
            # the reference is the base model: asked once per pair, not once per pair and epoch
            precompute_ref_log_probs=True,
            precompute_ref_batch_size=common.at_once_of(model, settings),
            # TRL would switch off the LoRA layers' dropout (and the base model's, for good)
            disable_dropout=False,
        )
        common.one_device(arguments)
        trainer = _Trainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=common.lora_config(model, settings),
        )

        # 3. Every epoch leaves an adapter.
        def keep(epoch: int) -> None:
            saved.append(common.save_adapter(trainer.model, out / f"epoch-{epoch}", name))

        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(common.Watcher(on_step, keep, epochs=keeper.epochs))
        trainer.add_callback(keeper)
        trainer.train(resume_from_checkpoint=keeper.checkpoint)
    keeper.clear()
    return saved


class _Trainer(Resumable, DPOTrainer):  # type: ignore[misc, unused-ignore]
    """TRL's trainer, told that the data is tokenised, kept from writing and phoning anywhere."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

    def _send_telemetry(self) -> None:
        """Do nothing: what a deployment trains is nobody else's business."""

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Compute the reference log-probabilities as TRL does, but keep them in memory.

        TRL's own hashes the whole model and writes a cache file; this sorts by length besides.
        """
        rows = dataset.to_list()
        order = sorted(range(len(rows)), key=lambda i: -_length(rows[i]))
        for start in range(0, len(rows), batch_size):
            some = [rows[i] for i in order[start : start + batch_size]]
            batch = self._prepare_inputs(self.data_collator(some))
            compute: Any = self.compute_ref_log_probs  # TRL gives it no types
            chosen, rejected = compute(self.model, batch)
            for row, c, r in zip(some, chosen.tolist(), rejected.tolist(), strict=True):
                row.update(ref_chosen_logps=c, ref_rejected_logps=r)
        return Dataset.from_list(rows)


def _length(row: Mapping[str, Any]) -> int:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
