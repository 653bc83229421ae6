"""Train the bundled model from scratch on the simulated world.

    python -m lab.bundled.train --out build/bundled --tokens 30e6

Read this file top to bottom for model, loss, optimisers and loop; ``data.py`` has tokens
and batches, ``disk.py`` checkpoints and the shipped folder. Seeded; a killed run goes on
from its last checkpoint with the same command. CPU (two cores, an hour) or GPU (minutes).

Qwen3 architecture, so that ``AutoModelForCausalLM`` and vLLM load it like any other model. Matrices
are trained by Muon, the rest by AdamW, in bf16 autocast with float32 master weights.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from lab.bundled.curriculum import Curriculum
from lab.bundled.data import (
    OWN_ERRORS_AT,
    BundledConfig,
    batches,
    chunk_examples,
    make_tokenizer,
    own_revisions,
)
from lab.bundled.disk import checkpoint, resume, save, ship

__all__ = ["BundledConfig", "main", "train"]


def train(
    config: BundledConfig,
    out: Path,
    *,
    max_steps: int | None = None,
    compiled: bool = True,
    console: Console | None = None,
) -> Path:
    """Train (or go on training); save model, tokenizer and template to ``out``; return it."""
    say = (console or Console(stderr=True)).print
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = make_tokenizer(config, out)
    model = _model(config, tokenizer).to(device)
    muon, adamw = _optimisers(config, model)
    steps = math.ceil(config.tokens / config.batch_tokens)
    position, pool = resume(out, model, (muon, adamw))
    step, chunk, drawn = position["step"], position["chunk"], position["drawn"]
    if step:
        say(f"going on from step {step} of {steps}")
    body = torch.compile(model.model, dynamic=False) if compiled else model.model
    started, seen, window, saved = time.monotonic(), 0, [], time.monotonic()
    while step < min(steps, max_steps or steps):
        chunk += 1
        curriculum = Curriculum(seed=config.seed * 1_000_003 + chunk)
        if config.own_errors and drawn < sum(steps * share <= step for share in OWN_ERRORS_AT):
            fresh = own_revisions(model, tokenizer, curriculum, config.own_errors)
            pool, drawn = (pool + fresh)[-2 * config.own_errors :], drawn + 1
            flawed = sum(not p["faithful"] for p in fresh)
            say(f"sampled {len(fresh)} own revisions, {flawed} flawed")
        examples = chunk_examples(curriculum, pool)
        for ids, weights in batches(tokenizer, examples, config, Random(chunk)):
            for group in (*muon.param_groups, *adamw.param_groups):
                group["lr"] = config.learning_rate * _schedule(step, steps, config.warmup)
            loss = _loss(body, model, ids.to(device), weights.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in (muon, adamw):
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            step += 1
            seen += ids.numel()
            window.append(float(loss.detach()))
            if step % 25 == 0:
                rate = seen / (time.monotonic() - started)
                mean = sum(window[-25:]) / len(window[-25:])
                say(f"step {step}/{steps} loss {mean:.4f} {rate:,.0f} tokens/s", highlight=False)
            if step >= min(steps, max_steps or steps):
                break
        if time.monotonic() - saved > 120 or step >= steps:
            position = {"step": step, "chunk": chunk, "drawn": drawn}
            checkpoint(out, model, (muon, adamw), position, pool)
            saved = time.monotonic()
    position = {"step": step, "chunk": chunk, "drawn": drawn}
    checkpoint(out, model, (muon, adamw), position, pool)
    save(out, model, tokenizer, config)
    return out


# -- model -----------------------------------------------------------------------------------------


def _model(config: BundledConfig, tokenizer: Any) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocabulary,
            hidden_size=config.hidden,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.mlp,
            tie_word_embeddings=True,
            max_position_embeddings=1024,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _loss(body: Any, model: Any, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted next-token cross-entropy; (batch, length) ids and weights -> scalar.

    Padding stands on the right, so causal attention never sees it and needs no mask.
    """
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        hidden = body(input_ids=ids, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, :-1])
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    w = weights[:, 1:].flatten()
    return (losses * w).sum() / w.sum()


def _optimisers(config: BundledConfig, model: Any) -> tuple[Any, Any]:
    """Muon for the matrices inside layers; AdamW for embeddings and norms."""
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    ids = {id(p) for p in inner}
    outer = [p for p in model.parameters() if id(p) not in ids]
    muon = torch.optim.Muon(
        inner, lr=config.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(outer, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    return muon, adamw


def _schedule(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


app = typer.Typer(add_completion=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the final model.")],
    tokens: Annotated[float, typer.Option(help="Training tokens, padding included.")] = 30e6,
    seed: Annotated[int, typer.Option(help="Of data and weights.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak, for Muon and AdamW.")] = 4e-3,
    max_steps: Annotated[int | None, typer.Option(help="Stop early (for tests).")] = None,
    compiled: Annotated[bool, typer.Option(help="Use torch.compile.")] = True,
    ship_to: Annotated[
        Path | None, typer.Option(help="Also write the shipped folder here.")
    ] = None,
) -> None:
    """Train the bundled model from scratch; the same command goes on after an interruption."""
    config = BundledConfig(seed=seed, tokens=int(tokens), learning_rate=learning_rate)
    train(config, out, max_steps=max_steps, compiled=compiled)
    if ship_to is not None:
        ship(out / "model", ship_to)


if __name__ == "__main__":
    app()
