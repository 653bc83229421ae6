"""Train the embedded model from scratch on the simulated world.

    python -m langchain_uno.trainers.embedded --out build/embedded --tokens 22e6

One linear file: tokenizer, model, batches, optimiser, loop, save. Seeded; a killed run goes on from its
last checkpoint with the same command. CPU (two cores, about an hour) or GPU (minutes).

Qwen3 architecture, so that ``AutoModelForCausalLM`` and vLLM load it like any other model. Matrices
are trained by Muon, the rest by AdamW, in bf16 autocast with float32 master weights.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from safetensors.torch import load_file, save_file

from langchain_uno.records import Message
from langchain_uno.world.curriculum import Curriculum, Example

__all__ = ["EmbeddedConfig", "main", "template_messages", "train"]

PROMPT_WEIGHT = 0.1
"""Loss weight of prompt tokens (1 for the model's own turn): they teach copying early."""
BUCKETS = (64, 96, 128, 160, 224, 320, 448)
"""Padded lengths; few shapes keep compilation cheap."""
CHUNK = 4096
"""Examples drawn, sorted by length and batched at a time; also the unit of resuming."""


@dataclass(frozen=True)
class EmbeddedConfig:
    """What decides the weights. Sizes as in the model card."""

    seed: int = 0
    tokens: int = 22_000_000
    batch_tokens: int = 8192
    learning_rate: float = 4e-3
    warmup: int = 80
    vocabulary: int = 2048
    hidden: int = 192
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 32
    mlp: int = 512
    own_errors: int = 1500
    """Own revisions sampled for the judge, at 55 % and at 80 % of the run."""


def train(
    config: EmbeddedConfig, out: Path, *, max_steps: int | None = None, compiled: bool = True,
    console: Console | None = None,
) -> Path:
    """Train (or go on training) and save model, tokenizer and template to ``out``; return ``out``."""
    say = (console or Console(stderr=True)).print
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = _tokenizer(config, out)
    model = _model(config, tokenizer).to(device)
    muon, adamw = _optimisers(config, model)
    steps = math.ceil(config.tokens / config.batch_tokens)
    step, chunk, pool = _resume(out, model, (muon, adamw))
    if step:
        say(f"going on from step {step} of {steps}")
    body = torch.compile(model.model, dynamic=False) if compiled else model.model
    milestones = [int(steps * share) for share in (0.55, 0.8)] if config.own_errors else []
    started, seen, window, saved = time.monotonic(), 0, [], time.monotonic()
    while step < min(steps, max_steps or steps):
        chunk += 1
        curriculum = Curriculum(seed=config.seed * 1_000_003 + chunk)
        if any(m <= step for m in milestones) and len(pool) < config.own_errors * sum(
            m <= step for m in milestones
        ):
            pool += own_revisions(model, tokenizer, curriculum, config.own_errors)
            flawed = sum(not p["faithful"] for p in pool[-config.own_errors :])
            say(f"sampled {config.own_errors} own revisions, {flawed} flawed")
        examples = _chunk_examples(curriculum, pool)
        for ids, weights in _batches(tokenizer, examples, config, Random(chunk)):
            for group in (*muon.param_groups, *adamw.param_groups):
                group["lr"] = config.learning_rate * _schedule(step, steps, config.warmup)
            loss = _loss(body, model, ids.to(device), weights.to(device))
            loss.backward()
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
            _checkpoint(out, model, (muon, adamw), step, chunk, pool)
            saved = time.monotonic()
    _checkpoint(out, model, (muon, adamw), step, chunk, pool)
    _save(out, model, tokenizer, config)
    return out


# -- data ------------------------------------------------------------------------------------------


def template_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Return messages in the shape chat templates take."""
    out: list[dict[str, Any]] = []
    for m in messages:
        entry: dict[str, Any] = {"role": m.role, "content": m.content}
        if m.tool_calls:
            entry["tool_calls"] = [{"name": c["name"], "arguments": c["args"]} for c in m.tool_calls]
        out.append(entry)
    return out


def encode(tokenizer: Any, example: Example) -> tuple[list[int], list[float]]:
    """Return token ids and loss weights: 1 on the last turn, ``PROMPT_WEIGHT`` before it."""
    messages = template_messages(example.messages)
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tools=example.tools, add_generation_prompt=True, tokenize=False
    )
    whole = tokenizer.apply_chat_template(messages, tools=example.tools, tokenize=False)
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(whole[len(prompt) :].rstrip("\n"), add_special_tokens=False)["input_ids"]
    return head + tail, [PROMPT_WEIGHT] * len(head) + [1.0] * len(tail)


def _chunk_examples(curriculum: Curriculum, pool: list[dict[str, Any]]) -> list[Example]:
    """Draw a chunk; a third of the judge's answers are the model's own once there are any."""
    from langchain_uno.world.answers import Query

    out = []
    for _ in range(CHUNK):
        example = curriculum.draw()
        if example.role == "judge" and pool and curriculum.rng.random() < 0.35:
            own = curriculum.rng.choice(pool)
            query = Query(**{k: tuple(v) if isinstance(v, list) else v for k, v in own["query"].items()})
            example = curriculum.judge_example(query, own["asked"], own["answer"])
        out.append(example)
    return out


def _batches(
    tokenizer: Any, examples: list[Example], config: EmbeddedConfig, rng: Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield padded (ids, weights) of one bucket length each; the odd rest of a bucket is dropped."""
    buckets: dict[int, list[tuple[list[int], list[float]]]] = {b: [] for b in BUCKETS}
    for example in examples:
        ids, weights = encode(tokenizer, example)
        bucket = next((b for b in BUCKETS if len(ids) <= b), None)
        if bucket:
            buckets[bucket].append((ids, weights))
    batches = []
    for length, rows in buckets.items():
        size = max(1, config.batch_tokens // length)
        rng.shuffle(rows)
        batches += [(length, rows[i : i + size]) for i in range(0, len(rows) - size + 1, size)]
    rng.shuffle(batches)
    for length, rows in batches:
        ids = torch.full((len(rows), length), tokenizer.pad_token_id)
        weights = torch.zeros(len(rows), length)
        for i, (row, w) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            weights[i, : len(w)] = torch.tensor(w)
        yield ids, weights


def own_revisions(model: Any, tokenizer: Any, curriculum: Curriculum, count: int) -> list[dict[str, Any]]:
    """Sample the model's own revisions (temperature 1), so that its judge learns its own slips."""
    from langchain_uno.world.answers import check_answer

    model.eval()
    tokenizer.padding_side = "left"
    out: list[dict[str, Any]] = []
    while len(out) < count:
        tasks = []
        for _ in range(64):
            query, asked = curriculum.query(), curriculum.rules(4)
            texts = [curriculum.language.rules[r].text for r in asked]
            user = [Message(role="user", content=query.text)]
            prompt = curriculum.prompts.revise_rules_prompt(user, "", texts, [], "en")
            tasks.append((query, asked, template_messages(prompt)))
        encoded = tokenizer.apply_chat_template(
            [t[2] for t in tasks], add_generation_prompt=True, return_tensors="pt", padding=True,
            return_dict=True,
        ).to(model.device)
        with torch.no_grad():
            answers = model.generate(
                **encoded, max_new_tokens=160, do_sample=True, temperature=1.2, top_k=0, top_p=1.0
            )
        for (query, asked, _), row in zip(tasks, answers, strict=True):
            text = tokenizer.decode(row[encoded["input_ids"].shape[1] :], skip_special_tokens=True)
            check = check_answer(curriculum.language, query, text)
            faithful = check.faithful and set(asked) <= check.met
            out.append(
                {"query": asdict(query), "asked": asked, "answer": text, "faithful": faithful}
            )
    tokenizer.padding_side = "right"
    model.train()
    # keep every flawed answer, and as many good ones
    flawed = [o for o in out if not o["faithful"]]
    good = [o for o in out if o["faithful"]]
    return (flawed * (1 + count // (2 * max(1, len(flawed)))) + good)[:count] if flawed else good[:count]


# -- model -----------------------------------------------------------------------------------------


def _tokenizer(config: EmbeddedConfig, out: Path) -> Any:
    """Byte-level BPE on the seen half of the world; single digits, so that numbers copy."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if (out / "tokenizer.json").is_file():
        return AutoTokenizer.from_pretrained(out)
    curriculum = Curriculum(seed=config.seed - 1)
    texts = []
    for _ in range(30_000):
        example = curriculum.draw()
        texts += [m.content for m in example.messages]
        texts += [json.dumps(c["args"]) for m in example.messages for c in m.tool_calls]
        texts += [json.dumps(t["function"]) for t in example.tools or []]
        texts += [m.role for m in example.messages]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=config.vocabulary,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    template = resources.files("langchain_uno") / "models" / "chat_template.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(out)
    return AutoTokenizer.from_pretrained(out)


def _model(config: EmbeddedConfig, tokenizer: Any) -> Any:
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
            rope_theta=10_000.0,
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


def _optimisers(config: EmbeddedConfig, model: Any) -> tuple[Any, Any]:
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


# -- disk ------------------------------------------------------------------------------------------


def _checkpoint(
    out: Path, model: Any, optimisers: tuple[Any, Any], step: int, chunk: int, pool: list[dict[str, Any]]
) -> None:
    """Write weights, optimiser moments and position (safetensors and JSON; no pickle), atomically."""
    tensors = {f"model.{k}": v.detach().cpu().clone() for k, v in model.state_dict().items()}
    tensors.pop("model.lm_head.weight", None)  # tied
    for i, optimiser in enumerate(optimisers):
        for j, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimiser.{i}.{j}.{key}"] = torch.as_tensor(value).detach().cpu().clone()
    temporary = out / ".checkpoint.tmp"
    save_file(tensors, temporary)
    position = {"step": step, "chunk": chunk, "pool": pool}
    (out / ".position.tmp").write_text(json.dumps(position), encoding="utf-8")
    os.replace(temporary, out / "checkpoint.safetensors")
    os.replace(out / ".position.tmp", out / "position.json")


def _resume(
    out: Path, model: Any, optimisers: tuple[Any, Any]
) -> tuple[int, int, list[dict[str, Any]]]:
    if not (out / "position.json").is_file():
        return 0, 0, []
    tensors = load_file(out / "checkpoint.safetensors")
    weights = {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(weights, strict=False)
    for i, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimiser.{i}."):
                _, _, j, name = key.split(".")
                state.setdefault(int(j), {})[name] = value
        whole = optimiser.state_dict()
        whole["state"] = state
        optimiser.load_state_dict(whole)
    position = json.loads((out / "position.json").read_text(encoding="utf-8"))
    return position["step"], position["chunk"], position["pool"]


def _save(out: Path, model: Any, tokenizer: Any, config: EmbeddedConfig) -> None:
    """Save in float32 beside the checkpoint; shipping rounds to the tested dtype."""
    final = out / "model"
    model.save_pretrained(final, safe_serialization=True)
    tokenizer.save_pretrained(final)
    (final / "training.json").write_text(json.dumps(asdict(config), indent=1), encoding="utf-8")


app = typer.Typer(add_completion=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the final model.")],
    tokens: Annotated[float, typer.Option(help="Training tokens, padding included.")] = 22e6,
    seed: Annotated[int, typer.Option(help="Of data and weights.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak, for Muon and AdamW.")] = 4e-3,
    max_steps: Annotated[int | None, typer.Option(help="Stop early (for tests).")] = None,
    compiled: Annotated[bool, typer.Option(help="Use torch.compile.")] = True,
) -> None:
    """Train the embedded model from scratch; the same command goes on after an interruption."""
    config = EmbeddedConfig(seed=seed, tokens=int(tokens), learning_rate=learning_rate)
    train(config, out, max_steps=max_steps, compiled=compiled)


if __name__ == "__main__":
    app()
