"""How surprising an answer is to the base model: exp of the mean loss a token of the answer.

An answer of another model, or a broken one, stands out; used by the refresh's filter when
``filter.max_perplexity`` is set. Needs a local engine, whose losses can be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from langchain_uno.errors import ConfigError
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import Engine, OnDone
from langchain_uno.records import Message

__all__ = ["perplexities"]

_MAX_TOKENS = 4096


def perplexities(
    items: Sequence[tuple[Sequence[Message], str]], engine: Engine, on_done: OnDone | None = None
) -> list[float]:
    """Return the perplexity of each answer after its prompt, by the plain base model.

    Args:
        items: (prompt, answer); what is longer than 4,096 tokens is cut in front.
        engine: a local one.
        on_done: hears of each answer.

    Raises:
        ConfigError: the engine's model runs on a server.
    """
    if not isinstance(engine, LocalEngine):
        raise ConfigError(
            "filter.max_perplexity needs the model's losses, which a server does not give: leave "
            "it unset, or refresh with the weights themselves (--model NAME)."
        )
    out = []
    for messages, answer in items:
        out.append(float(engine.call_in_owner(partial(_one, engine, messages, answer))))
        if on_done:
            on_done(1)
    return out


def _one(engine: LocalEngine, messages: Sequence[Message], answer: str) -> float:
    import torch

    model = engine.model
    said = engine.encode(answer)
    if not said:
        return math.inf
    ids = (engine.prompt(messages) + said)[-_MAX_TOKENS:]
    n = min(len(said), len(ids) - 1)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, -n - 1 : -1]
        target = torch.tensor(ids[-n:], device=logits.device)
        loss = torch.nn.functional.cross_entropy(logits.float(), target)
    return math.exp(min(float(loss), 50.0))
