"""What capture costs a request: a fake chat model with and without the handler, paired.

    python tests/benchmarks/bench_capture.py [--calls 5000] [--chars 600] [--history 2] [--cpu]

Prints milliseconds at p50 and p99: the bare call, a handler that does nothing, ours, and the added
time of ours (ours minus bare, quantile by quantile); then plain journal appends per second.
``--cpu`` counts the thread's processor time instead of the clock's (for a busy machine).
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Interaction, Message

clock = time.perf_counter


def timed(call: Callable[[int], object], n: int) -> np.ndarray:
    """Milliseconds of each of ``n`` calls."""
    out = np.empty(n)
    for i in range(n):
        start = clock()
        call(i)
        out[i] = clock() - start
    return out * 1e3


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--chars", type=int, default=600)
    parser.add_argument("--history", type=int, default=2)
    parser.add_argument("--cpu", action="store_true")
    args = parser.parse_args()
    if args.cpu:
        global clock
        clock = time.thread_time
    words = "The invoice of 14 May over 120.50 is open; please write to the client. " * 1000
    model = FakeListChatModel(responses=[words[: args.chars]])

    def prompt(i: int) -> list[object]:
        turns: list[object] = [SystemMessage("You are a helpful clerk.")]
        for turn in range(args.history):
            turns += [
                HumanMessage(f"{i}-{turn} " + words[: args.chars]),
                AIMessage(words[: args.chars]),
            ]
        return [*turns, HumanMessage(f"And {i}? " + words[: args.chars])]

    prompts = [prompt(i) for i in range(args.calls)]
    gc.freeze()  # thousands of waiting prompts are this script's, not an app's
    with tempfile.TemporaryDirectory() as folder:
        ours = UNOFeedbackHandler(home=Path(folder) / "home")
        idle = BaseCallbackHandler()
        configs = {
            "bare": {},
            "idle handler": {"callbacks": [idle]},
            "ours": {"callbacks": [ours], "metadata": {"thread_id": "t", "user_id": "u"}},
        }
        for config in configs.values():
            timed(lambda i, c=config: model.invoke(prompts[i], c), 200)
        found = {name: [] for name in configs}
        for part in range(0, args.calls, 500):  # interleaved, so that other load hits all alike
            for name, config in configs.items():
                n = min(500, args.calls - part)
                found[name].append(
                    timed(lambda i, c=config, p=part: model.invoke(prompts[p + i], c), n)
                )
        quantiles = {k: np.percentile(np.concatenate(v), [50, 99]) for k, v in found.items()}
        for name, (p50, p99) in quantiles.items():
            print(f"{name:>14}: p50 {p50:.3f} ms  p99 {p99:.3f} ms")
        added = quantiles["ours"] - quantiles["bare"]
        print(f"{'added by ours':>14}: p50 {added[0]:.3f} ms  p99 {added[1]:.3f} ms")
        print("handler:", ours.stats())
        ours.close()
        journal = Journal(Path(folder) / "plain")
        records = [
            Interaction(messages=[Message(role="user", content=words[: args.chars])], answer="yes")
            for _ in range(args.calls)
        ]
        spent = timed(lambda i: journal.append_interaction(records[i]), args.calls)
        print(
            f"journal append: p50 {np.percentile(spent, 50):.3f} ms  p99 "
            f"{np.percentile(spent, 99):.3f} ms  {1e3 / spent.mean():.0f}/s"
        )
        journal.close()


if __name__ == "__main__":
    main()
