"""Yes/no rerankers: is a suggestion already covered by what is known? (paper, stage 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from langchain_uno.errors import ConfigError
from langchain_uno.models.protocols import Engine, FloatArray, OnDone
from langchain_uno.models.roles import PromptSet

if TYPE_CHECKING:
    from langchain_uno.models.local import LocalEngine


class EngineReranker:
    """The base model's own yes/no, by a prompt set's words, on a local engine."""

    def __init__(self, engine: Engine, prompts: PromptSet) -> None:
        self._engine = cast("LocalEngine", engine)
        self._prompts = prompts
        self.fingerprint = f"{engine.fingerprint}:{prompts.fingerprint}"
        """Identifies the model and the words."""

    def covered(
        self, pairs: Sequence[tuple[str, str]], on_done: OnDone | None = None
    ) -> FloatArray:
        """Return P(yes) for each pair (suggestion, known rule): shape (n,), in [0, 1]."""
        prompts = [self._prompts.cover_prompt(suggestion, known) for suggestion, known in pairs]
        probs: FloatArray = self._engine.choose(prompts, self._prompts.cover_options, on_done)[:, 0]
        return probs

    def covered_by_list(
        self, items: Sequence[tuple[str, Sequence[str]]], on_done: OnDone | None = None
    ) -> FloatArray:
        """Return P(yes) for each (suggestion, all known rules): shape (n,).

        A prompt set that asks rule by rule gives the highest answer of a list's rules.
        """
        asked = [self._prompts.cover_list_prompt(*item) for item in items]
        if lists := [prompt for prompt in asked if prompt is not None]:  # all or none
            found: FloatArray = self._engine.choose(lists, self._prompts.cover_options, on_done)
            return found[:, 0]
        rules = [(i, said, rule) for i, (said, known) in enumerate(items) for rule in known]
        out = np.zeros(len(items), np.float32)
        np.maximum.at(
            out, [i for i, *_ in rules], self.covered([(said, rule) for _, said, rule in rules])
        )
        if on_done is not None:
            on_done(len(items))
        return out


class CausalReranker:
    """A causal reranker in Qwen3-Reranker's documented form, by name, folder or engine.

    Prompt and scoring follow the model card (huggingface.co/Qwen/Qwen3-Reranker-0.6B): a fixed
    system turn, ``<Instruct>``, ``<Query>`` (the suggestion) and ``<Document>`` (the known rules),
    an empty thinking block, then P(yes) against P(no) of the next token.
    """

    INSTRUCTION = (
        "Judge whether the suggestion in the Query is already semantically covered by the list of "
        "suggestions in the Document"
    )
    _PREFIX = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n"
    )
    _SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

    def __init__(self, model: str | LocalEngine, *, max_tokens: int = 8192) -> None:
        from langchain_uno.models.loading import load_engine
        from langchain_uno.models.local import LocalEngine

        engine = load_engine(model) if isinstance(model, str) else model
        if not isinstance(engine, LocalEngine):
            raise ConfigError("A causal reranker runs locally: give a folder or a hub name.")
        self._engine = engine
        self._max_tokens = max_tokens
        self.fingerprint = engine.fingerprint
        """Identifies the reranker's weights."""

    def covered(
        self, pairs: Sequence[tuple[str, str]], on_done: OnDone | None = None
    ) -> FloatArray:
        """Return P(yes) for each pair (suggestion, known rule): shape (n,), in [0, 1]."""
        encode = self._engine.encode
        prefix, suffix = encode(self._PREFIX), encode(self._SUFFIX)
        room = self._max_tokens - len(prefix) - len(suffix)
        prompts = []
        for suggestion, known in pairs:
            body = (
                f"<Instruct>: {self.INSTRUCTION}\n<Query>: {_plain(suggestion)}\n"
                f"<Document>: {_plain(known)}"
            )
            prompts.append([*prefix, *encode(body)[:room], *suffix])
        probs: FloatArray = self._engine.choose_tokens(prompts, ("yes", "no"), on_done)[:, 0]
        return probs

    def covered_by_list(
        self, items: Sequence[tuple[str, Sequence[str]]], on_done: OnDone | None = None
    ) -> FloatArray:
        """Return P(yes) for each (suggestion, all known rules): shape (n,)."""
        lists = [
            (said, "\n".join(f"{n}. {rule}" for n, rule in enumerate(known, 1)))
            for said, known in items
        ]
        return self.covered(lists, on_done)


def _plain(text: str) -> str:
    """Users' words are data: they can't open or close a turn of the prompt."""
    return text.replace("<|", "< |")
