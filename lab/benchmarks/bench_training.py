"""``python -m lab.benchmarks.bench_training``: tokens a second of an expert's training.

    python -m lab.benchmarks.bench_training --model .models/smollm2 --pairs 64 --tokens 512
    python -m lab.benchmarks.bench_training --model SHAPE --random --dtype bfloat16 --peak 989

Every pair has a prompt and two answers of random words. Counted as work are 4 operations a
parameter and token of a step (forward, and back through weights that stay) and 2 of the reference's
one pass; with the chip's peak given, the share of it is printed. ``--random`` takes no more than a
folder with a config and a tokenizer, and leaves its weights there: they cost the same time.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Annotated

import typer

from langchain_uno.cli.console import clean_exit
from langchain_uno.records import Message, PreferencePair
from langchain_uno.train import effective_recipe

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def main(
    model: Annotated[Path, typer.Option(help="Folder of the base model.")],
    pairs: Annotated[int, typer.Option(help="Pairs.")] = 64,
    tokens: Annotated[int, typer.Option(help="Tokens of a prompt with one answer, about.")] = 512,
    batch: Annotated[int, typer.Option(help="Pairs an optimiser step.")] = 32,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = 2,
    dtype: Annotated[str | None, typer.Option(help="Of the weights.")] = None,
    peak: Annotated[float | None, typer.Option(help="The chip's peak, in TFLOP/s.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the recipe, say lora.dropout=0.")
    ] = None,
    random: Annotated[
        bool, typer.Option(help="Draw weights of the shape in the folder's config.json.")
    ] = False,
) -> None:
    """Train an expert on random pairs, and say how fast that was."""
    with clean_exit():
        from langchain_uno.models.loading import load_engine
        from langchain_uno.trainers.common import TrainSettings
        from langchain_uno.trainers.expert import train_expert

        if random:
            draw_weights(model, dtype or "float32")
        engine = load_engine(str(model), dtype=dtype)
        base, tokenizer = engine.model, engine.tokenizer
        rng = Random(0)
        words = ("water", "tent", "stone", "river", "light", "paper", "green", "small")
        text = lambda n: " ".join(rng.choice(words) for _ in range(n))  # noqa: E731
        half = tokens // 2
        examples = [
            PreferencePair(
                run_id=f"r{n}",
                messages=[Message(role="user", content=text(half))],
                chosen=text(half),
                rejected=text(half),
                voice=f"u{n}",
            )
            for n in range(pairs)
        ]
        own = (f"lora.batch_size={batch}", f"lora.epochs={epochs}", "expert.min_steps=0")
        recipe = effective_recipe(None, "default", (*own, *(sets or ())))
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainSettings.of(recipe, "expert")
            train_expert(base, tokenizer, examples[:4], Path(folder) / "warm", settings, 0)
            began = time.perf_counter()
            train_expert(base, tokenizer, examples, Path(folder) / "timed", settings, 0)
            seconds = time.perf_counter() - began
        parameters = sum(p.numel() for p in base.parameters())
        seen = epochs * pairs * 2 * tokens
        # The reference is asked once a pair, whatever the epochs.
        operations = parameters * (4 * seen + 2 * seen / epochs)
        told = {
            "model": model.name,
            "device": str(base.device),
            "dtype": str(base.dtype),
            "parameters": parameters,
            "seconds": round(seconds, 2),
            "tokens_per_second": round(seen / seconds),
            "tflop_per_second": round(operations / seconds / 1e12, 3),
        }
        if peak:
            told["share_of_peak"] = round(operations / seconds / 1e12 / peak, 4)
        typer.echo(json.dumps(told))


def draw_weights(folder: Path, dtype: str) -> None:
    """Write weights at random of the shape that a folder's config names."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)


if __name__ == "__main__":
    app()
