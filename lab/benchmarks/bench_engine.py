"""Throughput and overheads of the local engine. By hand: python lab/benchmarks/bench_engine.py

A random Qwen3 of the bundled model's size (2.75 M parameters) on the CPU, one thread. Prints wall
and CPU seconds (the latter hold on a busy machine too).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from langchain_uno import UNOChatModel
from langchain_uno.models import batch
from langchain_uno.models.embedders import TokenEmbedder
from langchain_uno.models.loading import load_engine, load_prompt_set
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.records import Message
from langchain_uno.testing import make_tiny_adapter, make_tiny_model


def make_model(folder: Path) -> Path:
    make_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = Qwen3Config(
        vocab_size=2048,
        hidden_size=192,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=512,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def request(words: int, tokens: int, adapter: str | None = None) -> GenerateRequest:
    text = "abc " * words
    return GenerateRequest(
        [Message(role="user", content=text)], adapter, Sampling(max_tokens=tokens)
    )


class Clock:
    def __enter__(self) -> Clock:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: Any) -> None:
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.process_time() - self.cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = make_model(Path(folder) / "model")
        engine = load_engine(str(path), device="cpu")
        assert isinstance(engine, LocalEngine)
        rng = random.Random(0)
        many = [request(rng.randint(10, 30), rng.randint(20, 60)) for _ in range(args.requests)]
        engine.generate(many[:8])
        with Clock() as clock:
            out = engine.generate(many)
        tokens = sum(g.usage.output_tokens for g in out)
        report("bulk, base, batch 32", tokens, clock)
        for i in range(8):
            adapter = make_tiny_adapter(Path(folder) / f"a{i}", path, seed=i, rank=16)
            engine.load_adapter(f"a{i}", adapter)
        for what, names in (
            ("8 rows, base (adapters loaded)", [None] * 8),
            ("8 rows, one adapter", ["a0"] * 8),
            ("8 rows, 8 adapters", [f"a{i}" for i in range(8)]),
        ):
            rows = [request(20, 60, name) for name in names]
            engine.generate(rows)
            with Clock() as clock:
                for _ in range(3):
                    out = engine.generate(rows)
            report(what, 3 * sum(g.usage.output_tokens for g in out), clock)
        one = request(20, 40, "a0")
        with Clock() as clock:
            for _ in range(10):
                engine.generate([one])
        report("1 row, one adapter, engine", 400, clock)
        inputs = engine.tokenizer(
            "x" * engine.generate([one])[0].usage.input_tokens, return_tensors="pt"
        )
        with engine.exclusive() as (model, _), torch.inference_mode(), Clock() as clock:
            for _ in range(10):
                model.generate(**inputs, do_sample=False, max_new_tokens=40, min_new_tokens=40)
        report("1 row, base, bare model.generate", 400, clock)
        chat = UNOChatModel(engine=engine, max_tokens=40)
        text = one.messages[0].content
        for what, call in (
            ("engine", lambda: engine.generate([request(20, 40)])),
            ("UNOChatModel", lambda: chat.invoke(text)),
        ):
            call()
            with Clock() as clock:
                for _ in range(10):
                    call()
            print(f"{what}: {clock.cpu * 100:.1f} ms CPU a request of 40 tokens")
        embedder = TokenEmbedder(engine)
        with Clock() as clock:
            for _ in range(20):
                embedder.embed([text])
        print(f"routing embedding of {len(text)} tokens: {clock.cpu * 50:.2f} ms CPU")
        engine.close()
    shared_beginnings()


def shared_beginnings() -> None:
    """Role prompts on the bundled model: their common beginning once, and each prompt anew."""
    engine, prompts = load_engine(), load_prompt_set("real")
    asked = [[Message(role="user", content=f"Reset router {i}? " * (1 + i % 9))] for i in range(64)]
    made = {
        "distil": [prompts.distil_prompt(m, "Hold the button.", ["shorter"], "en") for m in asked],
        "judge": [prompts.judge_prompt(m, ["Be brief."], "Hold it.", "en") for m in asked],
    }
    for role, given in made.items():
        for tokens in (1, 40):
            rows = [GenerateRequest(p, sampling=Sampling(max_tokens=tokens)) for p in given]
            seconds, worth = [], batch._WORTH
            for batch._WORTH in (10**9, worth):
                engine.generate(rows[:8])
                with Clock() as clock:
                    out = engine.generate(rows)
                seconds.append(clock.cpu)
            anew, once = seconds
            length = sum(g.usage.input_tokens for g in out) // len(out)
            print(
                f"{role}, {length} + {tokens} tokens: {anew:.2f} CPU s each anew, {once:.2f} once "
                f"for all: {anew / once:.1f} times as fast"
            )
    engine.close()


def report(what: str, tokens: int, clock: Clock) -> None:
    print(
        f"{what}: {tokens} tokens, {tokens / clock.wall:,.0f}/s wall, "
        f"{tokens / clock.cpu:,.0f} a CPU second"
    )


if __name__ == "__main__":
    main()
