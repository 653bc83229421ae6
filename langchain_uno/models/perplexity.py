"""How likely an answer is to a model: the mean log-probability a token, and what is made of it.

The refresh's filter leaves out answers that surprise the base model (``filter.max_perplexity``):
those of another model, say. The verifier asks whether a module made liked answers likelier. Both
need a local engine, whose losses can be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from langchain_uno.errors import ConfigError
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import Engine, OnDone
from langchain_uno.records import Message

_MAX_TOKENS = 4096


def perplexities(
    items: Sequence[tuple[Sequence[Message], str]], engine: Engine, on_done: OnDone | None = None
) -> list[float]:
    """Return the perplexity of each answer after its prompt, by the plain base model.

    That is exp of the mean loss; arguments and errors are those of :func:`log_likelihoods`.
    """
    return [math.exp(min(-one, 50.0)) for one in log_likelihoods(items, engine, on_done=on_done)]


def log_likelihoods(
    items: Sequence[tuple[Sequence[Message], str]],
    engine: Engine,
    adapter: str | None = None,
    on_done: OnDone | None = None,
) -> list[float]:
    """Return the mean log-probability a token of each answer after its prompt.

    Args:
        items: (prompt, answer); what is longer than 4,096 tokens is cut in front. An empty answer
            has -inf.
        engine: a local one.
        adapter: a loaded one; None: the plain base model.
        on_done: is told of each answer.

    Raises:
        ConfigError: the engine's model runs on a server.
    """
    if not isinstance(engine, LocalEngine):
        raise ConfigError(
            "Perplexities (filter.max_perplexity) and thumbs need the model's losses, which a "
            "server does not give: refresh with the weights themselves (--model NAME)."
        )
    out = []
    for messages, answer in items:
        job = partial(_one, engine, messages, answer)
        out.append(float(engine.call_in_owner(job, adapter)))
        if on_done is not None:
            on_done(1)
    return out


def _one(engine: LocalEngine, messages: Sequence[Message], answer: str) -> float:
    import torch

    model = engine.model
    said = engine.encode(answer)
    if not said:
        return -math.inf
    ids = (engine.prompt(messages) + said)[-_MAX_TOKENS:]
    n = min(len(said), len(ids) - 1)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, -n - 1 : -1]
        target = torch.tensor(ids[-n:], device=logits.device)
        loss = torch.nn.functional.cross_entropy(logits.float(), target)
    return -float(loss)
