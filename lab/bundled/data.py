"""The bundled model's training data: tokenizer, token ids with weights, batches, own mistakes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

import torch

from lab.bundled.curriculum import Curriculum, Example
from langchain_uno.demo.answers import Query, check_answer
from langchain_uno.records import Message

__all__ = [
    "OWN_ERRORS_AT",
    "BundledConfig",
    "batches",
    "chunk_examples",
    "encode",
    "make_tokenizer",
    "own_revisions",
    "template_messages",
]

PROMPT_WEIGHT = 0.1
"""Loss weight of prompt tokens (1 for the model's own turn): they teach copying early."""
ROLE_WEIGHT = {"cover": 8.0, "distil": 3.0, "predict": 2.0, "tool": 2.0, "critique": 2.0}
"""Short completions count for more: per token, one yes or no weighs nothing against a judgement."""
VERDICT_WEIGHT = 8.0
"""Loss weight of a judgement's decisions (each yes or no, and the score) beside its quotations."""
VERDICT = re.compile(r"-> (yes|no)$|^score (\d+)|^added \| (.+)$", re.MULTILINE)
BUCKETS = (64, 96, 128, 160, 224, 320, 448)
"""Padded lengths; few shapes keep compilation cheap."""
OWN_ERRORS_AT = (0.55, 0.7, 0.85)
"""Shares of the run. Early slips are too coarse to teach anything about the rare late ones."""
CHUNK = 4096
"""Examples drawn, sorted by length and batched at a time; also the unit of resuming."""


@dataclass(frozen=True)
class BundledConfig:
    """What decides the weights. Sizes as in the model card."""

    seed: int = 0
    tokens: int = 30_000_000
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
    """Own revisions sampled for the judge at each of ``OWN_ERRORS_AT``; two samples are kept."""


def template_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Return messages in the shape chat templates take."""
    out: list[dict[str, Any]] = []
    for m in messages:
        entry: dict[str, Any] = {"role": m.role, "content": m.content}
        if m.tool_calls:
            entry["tool_calls"] = [
                {"name": c["name"], "arguments": c["args"]} for c in m.tool_calls
            ]
        out.append(entry)
    return out


def encode(tokenizer: Any, example: Example) -> tuple[list[int], list[float]]:
    """Return token ids and loss weights: the role's on the last turn, less before it."""
    messages = template_messages(example.messages)
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tools=example.tools, add_generation_prompt=True, tokenize=False
    )
    whole = tokenizer.apply_chat_template(messages, tools=example.tools, tokenize=False)
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    said = whole[len(prompt) :].rstrip("\n")
    encoded = tokenizer(said, add_special_tokens=False, return_offsets_mapping=True)
    tail = encoded["input_ids"]
    weights = [ROLE_WEIGHT.get(example.role, 1.0)] * len(tail)
    if example.role in ("judge", "compare"):
        spans = [
            m.span(m.lastindex or 0) for m in VERDICT.finditer(said.removesuffix("<|im_end|>"))
        ]
        for i, (start, end) in enumerate(encoded["offset_mapping"]):
            if any(start < b and end > a for a, b in spans):
                weights[i] = VERDICT_WEIGHT
    return head + tail, [PROMPT_WEIGHT] * len(head) + weights


def chunk_examples(curriculum: Curriculum, pool: list[dict[str, Any]]) -> list[Example]:
    """Draw a chunk; a third of the judge's answers are the model's own once there are any."""
    out = []
    for _ in range(CHUNK):
        example = curriculum.draw()
        if example.role == "judge" and pool and curriculum.rng.random() < 0.35:
            own = curriculum.rng.choice(pool)
            fields: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in own["query"].items()
            }
            query = Query(**fields)
            example = curriculum.judge_example(query, own["asked"], own["answer"])
        out.append(example)
    return out


def batches(
    tokenizer: Any, examples: list[Example], config: BundledConfig, rng: Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield padded (ids, weights), one bucket length each; a bucket's odd rest is dropped."""
    buckets: dict[int, list[tuple[list[int], list[float]]]] = {b: [] for b in BUCKETS}
    for example in examples:
        encoded = encode(tokenizer, example)
        bucket = next((b for b in BUCKETS if len(encoded[0]) <= b), None)
        if bucket:
            buckets[bucket].append(encoded)
    groups = []
    for length, rows in buckets.items():
        size = max(1, config.batch_tokens // length)
        rng.shuffle(rows)
        groups += [(length, rows[i : i + size]) for i in range(0, len(rows) - size + 1, size)]
    rng.shuffle(groups)
    for length, rows in groups:
        ids = torch.full((len(rows), length), tokenizer.pad_token_id)
        weights = torch.zeros(len(rows), length)
        for i, (row, w) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            weights[i, : len(w)] = torch.tensor(w)
        yield ids, weights


def own_revisions(
    model: Any, tokenizer: Any, curriculum: Curriculum, count: int
) -> list[dict[str, Any]]:
    """Sample the model's own revisions (temperature 1), so that its judge learns its own slips."""
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
            [t[2] for t in tasks],
            add_generation_prompt=True,
            return_tensors="pt",
            padding=True,
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
    return (
        (flawed * (1 + count // (2 * max(1, len(flawed)))) + good)[:count]
        if flawed
        else good[:count]
    )


def make_tokenizer(config: BundledConfig, out: Path) -> Any:
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
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=config.vocabulary - 2,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(["<tool_call>", "</tool_call>"])  # not special: decoded text keeps them
    template = resources.files("langchain_uno") / "models" / "chat_template.jinja"
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    tokenizer.save_pretrained(out)
    return AutoTokenizer.from_pretrained(out)
