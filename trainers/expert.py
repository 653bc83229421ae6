"""Stage 6: an Expert LoRA, trained on preference pairs with DPO + SFT by TRL.

    train_expert(model, tokenizer, pairs, out, settings, seed=0)   # -> [out/epoch-1, ...]

The expert answers a cluster's queries directly. Its loss is half DPO (sigmoid: the
chosen answer above the logged one, relative to the base model) + half SFT (the chosen
answer as it stands). Every epoch leaves an adapter folder that plain ``PeftModel.from_pretrained``
loads; which of them ships, if any, is the verifier's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from langchain_uno.models.training_state import Keeper, digest_of
from langchain_uno.records import PreferencePair
from langchain_uno.trainers import common
from langchain_uno.trainers.common import OnStep, TrainSettings

__all__ = ["train_expert"]

LOSS_WEIGHTS = (0.5, 0.5)
"""Of DPO and of SFT (the authors')."""
BETA = 0.1
"""How strongly DPO is held to the base model (the authors')."""


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

    Raises:
        InputError: no pair is left to train on.
    """
    # 1. Pairs become tokens: the prompt as it is served, both answers with the end of turn.
    end = common.turn_end(tokenizer)
    rows: list[dict[str, list[int]]] = []
    weights: list[float] = []
    for pair in pairs:
        row = {
            "prompt_ids": common.prompt_ids(tokenizer, pair.messages),
            "chosen_ids": common.completion_ids(tokenizer, pair.chosen, end),
            "rejected_ids": common.completion_ids(tokenizer, pair.rejected, end),
        }
        longest = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        if len(row["prompt_ids"]) + longest <= settings.max_length:
            rows.append(row)
            weights.append(pair.weight)
    left = len(rows)
    rows = [
        row for row, n in zip(rows, common.copies(weights, seed), strict=True) for _ in range(n)
    ]
    common.check_examples("pair", "an expert", len(pairs), left, rows, settings.max_length)

    # 2. The training: TRL's DPO trainer on a fresh PEFT LoRA. Every epoch leaves an adapter.
    keeper = Keeper(out, digest_of(rows, settings, seed))
    name = base_name or str(model.name_or_path)
    saved = [out / f"epoch-{n}" for n in range(1, keeper.epochs + 1)]

    def keep(epoch: int, adapted: Any) -> None:
        saved.append(common.save_adapter(adapted, out / f"epoch-{epoch}", name))

    options = {
        "loss_type": ["sigmoid", "sft"],
        "loss_weights": list(LOSS_WEIGHTS),
        "beta": BETA,
        # the reference is the base model: asked once per pair, not once per pair and epoch
        "precompute_ref_log_probs": True,
        "precompute_ref_batch_size": common.at_once_of(model, settings),
        # TRL would switch off the LoRA layers' dropout (and the base model's, for good)
        "disable_dropout": False,
    }
    watcher = common.Watcher(on_step, keep, epochs=keeper.epochs)
    with common.trained(
        _Trainer, DPOConfig, options, model, tokenizer, settings, seed, out, rows, watcher, keeper
    ):
        return saved


class _Trainer(common.QuietTrainer, DPOTrainer):  # type: ignore[misc, unused-ignore]
    """TRL's trainer, told that the data is tokenised, and kept from writing."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset

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
