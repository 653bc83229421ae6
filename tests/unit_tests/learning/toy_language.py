"""A language small enough to reason about: it stands in for *words*, never for storage or training.

A rule is any text; an answer obeys it when it contains it in square brackets. Texts mean the same
as far as they share words; ``sing~2`` is another wording of ``sing``. Feedback ``please X; please
Y`` asks for the rules X and Y, ``garble`` makes the model write nonsense, anything else asks for
nothing. A query ``... (guess: X; Y)`` is one for which the model would guess X and Y.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from langchain_uno.learning.controls import ANSWERS, SAME
from langchain_uno.models.protocols import FloatArray, GenerateRequest, Generation, OnDone
from langchain_uno.models.roles import RoleError
from langchain_uno.records import Feedback, Interaction, Message

CONTROLS = {rule: answer for own in ANSWERS.values() for rule, answer in own.items()}
"""What every judge has to know."""
ALIKE = {pair for own in SAME.values() for pair in own}
"""What every reranker has to know."""


def obeyed(answer: str) -> set[str]:
    return set(re.findall(r"\[([^\]]+)\]", answer))


def log(run_id: str, query: str, answer: str, *feedback: str, **more: Any) -> Interaction:
    """Build one interaction; each feedback is a comment."""
    return Interaction(
        run_id=run_id,
        messages=[Message(role="user", content=query)],
        answer=answer,
        feedback=[Feedback(run_id=run_id, comment=f) for f in feedback] + more.pop("extra", []),
        **more,
    )


class ToyPrompts:
    """Every prompt is one JSON object in a user turn."""

    fingerprint = "toy-1"
    cover_options = ("yes", "no")

    def __init__(self, languages: Sequence[str] = ("en",)) -> None:
        self.languages = languages

    def supports(self, language: str) -> bool:
        return language in self.languages

    def _ask(self, role: str, **what: Any) -> list[Message]:
        messages = what.pop("messages", None)
        if messages is not None:
            what["query"] = messages[-1].content
        return [Message(role="user", content=json.dumps({"role": role, **what}))]

    def distil_prompt(self, messages, answer, feedback, language):  # type: ignore[no-untyped-def]
        return self._ask("distil", messages=messages, answer=answer, feedback=list(feedback))

    def distil_edit_prompt(self, messages, answer, edit, language):  # type: ignore[no-untyped-def]
        """What stands in brackets is asked for; without any the set has no words for it."""
        said = "; ".join(f"please {rule}" for rule in sorted(obeyed(edit)))
        return self.distil_prompt(messages, answer, [said], language) if said else None

    def distil_thumbs_prompt(self, liked, disliked, language):  # type: ignore[no-untyped-def]
        """What stands in brackets in liked answers; without any the set has no words for it."""
        liked, disliked = [a for _, a in liked], [a for _, a in disliked]
        if not any(map(obeyed, liked)):
            return None
        return self._ask("distil_thumbs", liked=liked, disliked=disliked)

    def predict_prompt(self, messages, language):  # type: ignore[no-untyped-def]
        return self._ask("predict", messages=messages)

    def parse_rules(self, text: str) -> list[str]:
        try:
            rules = json.loads(text)
        except ValueError as error:
            raise RoleError(text) from error
        if not isinstance(rules, list):
            raise RoleError(text)
        return [str(r) for r in rules]

    def rules_schema(self, max_rules: int | None = None) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}}

    def revise_feedback_prompt(self, messages, feedback, language):  # type: ignore[no-untyped-def]
        return self._ask("fresh", messages=messages, feedback=list(feedback))

    def revise_rules_prompt(self, messages, answer, rules, feedback, language):  # type: ignore[no-untyped-def]
        return self._ask("edit", messages=messages, answer=answer, rules=list(rules))

    def judge_prompt(self, messages, rules, answer, language):  # type: ignore[no-untyped-def]
        return self._ask("judge", messages=messages, rules=list(rules), answer=answer)

    def parse_judgement(self, text: str) -> float:
        try:
            return float(text.rpartition(" ")[2])
        except ValueError as error:
            raise RoleError(text) from error

    def judge_schema(self) -> dict[str, Any] | None:
        return None

    def cover_prompt(self, suggestion: str, known: str) -> list[Message]:
        return self._ask("cover", suggestion=suggestion, known=known)

    def cover_list_prompt(self, suggestion: str, known: Sequence[str]) -> list[Message] | None:
        return self._ask("cover list", suggestion=suggestion, known=list(known))

    def critique_prompt(self, messages, draft, language):  # type: ignore[no-untyped-def]
        return self._ask("critique", messages=messages, draft=draft)

    def critique_completion(self, rules: Sequence[str]) -> str:
        return "\n".join(f"{i}. {r}" for i, r in enumerate(rules, 1))

    def parse_critique(self, text: str) -> list[str]:
        return re.findall(r"^\d+\. (.+)$", text, re.M)

    def revise_draft_prompt(self, messages, draft, suggestions, language):  # type: ignore[no-untyped-def]
        return self._ask("edit", messages=messages, answer=draft, rules=list(suggestions))


class ToyEngine:
    """Speaks the toy language; keeps every request it was asked in ``asked``."""

    model_name = "toy"
    fingerprint = "toy-engine"

    def __init__(self, answer: Callable[[dict[str, Any], GenerateRequest], str] | None = None):
        self.asked: list[tuple[dict[str, Any], GenerateRequest]] = []
        self._answer = answer or plain
        self.finish_reason = "stop"
        self.can_judge = True
        """Whether it is right in control questions, whatever it answers otherwise."""

    def generate(
        self, requests: Sequence[GenerateRequest], on_done: OnDone | None = None
    ) -> list[Generation]:
        out = []
        for request in requests:
            what = json.loads(request.messages[-1].content)
            self.asked.append((what, request))
            control = self.can_judge and what["role"] == "judge" and "Selma" in what["query"]
            text = (plain if control else self._answer)(what, request)
            out.append(Generation(text, finish_reason=self.finish_reason))
            if on_done is not None:
                on_done(1)
        return out

    def roles(self) -> list[str]:
        return [what["role"] for what, _ in self.asked]


def wishes(feedback: Sequence[str]) -> list[str]:
    return re.findall(r"please ([^;.]+)", "; ".join(feedback))


def plain(what: dict[str, Any], request: GenerateRequest) -> str:
    """The deterministic speaker of the toy language."""
    role = what["role"]
    if role == "distil":
        return "<<<" if "garble" in what["feedback"] else json.dumps(wishes(what["feedback"]))
    if role == "distil_thumbs":
        both = set.intersection(*map(obeyed, what["liked"]))
        return json.dumps(sorted(both - set().union(*map(obeyed, what["disliked"]))))
    if role == "predict":
        found = re.search(r"\(guess: ([^)]*)\)", what["query"])
        return json.dumps(found.group(1).split("; ") if found else [])
    if role == "fresh":
        return "fresh " + " ".join(f"[{r}]" for r in wishes(what["feedback"]))
    if role == "edit":
        missing = [r for r in what["rules"] if r not in obeyed(what["answer"])]
        return " ".join([what["answer"], *(f"[{r}]" for r in missing)])
    if role == "judge":
        rules = what["rules"]
        met = sum(r in obeyed(what["answer"]) or CONTROLS.get(r) == what["answer"] for r in rules)
        return f"met {met} of {len(rules)} {1 + 9 * met / max(1, len(rules))}"
    raise AssertionError(role)


class ToyReranker:
    """Covered means: the same words, or half so when the first word is the same."""

    fingerprint = "toy-reranker"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.asked_of_lists: list[tuple[str, tuple[str, ...]]] = []

    def covered(
        self, pairs: Sequence[tuple[str, str]], on_done: OnDone | None = None
    ) -> FloatArray:
        self.asked += pairs
        if on_done is not None:
            on_done(len(pairs))
        return np.asarray([self._covers(a, b) for a, b in pairs], dtype=np.float32)

    def covered_by_list(
        self, items: Sequence[tuple[str, Sequence[str]]], on_done: OnDone | None = None
    ) -> FloatArray:
        self.asked_of_lists += [(a, tuple(known)) for a, known in items]
        if on_done is not None:
            on_done(len(items))
        best = [max((self._covers(a, b) for b in known), default=0.0) for a, known in items]
        return np.asarray(best, dtype=np.float32)

    def _covers(self, a: str, b: str) -> float:
        return 1.0 if a == b or (a, b) in ALIKE else 0.5 if a.split()[0] == b.split()[0] else 0.0


class ToyEmbedder:
    """Words have directions of their own; wordings of one word (``sing~2``) are near each other."""

    fingerprint = "toy-embedder"

    def embed(self, texts: Sequence[str], on_done: OnDone | None = None) -> FloatArray:
        if on_done is not None:
            on_done(len(texts))
        return np.stack([self._vector(text) for text in texts]).astype(np.float32)

    def _vector(self, text: str) -> FloatArray:
        total = sum((_word(w) for w in re.findall(r"[\w~]+", text.lower())), np.zeros(96))
        return total / max(float(np.linalg.norm(total)), 1e-12)


def _word(word: str) -> FloatArray:
    concept, _, wording = word.partition("~")
    own = _direction(concept)
    return 0.85 * own + 0.53 * _direction(word) if wording else own


def _direction(word: str) -> FloatArray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    x = np.random.default_rng(seed).normal(size=96)
    return x / np.linalg.norm(x)
