"""A program that plays an ideal teacher for :mod:`.desk`, behind an OpenAI-compatible endpoint.

It stands in for a strong model given by ``--teacher``: it distils, guesses, revises, judges and
criticises without a mistake, because it knows every wish and every wording. It is no model, and
whoever shows its figures says so.

A prompt's role is told by the prompt set itself: each role is worded once with place-holders, which
gives a pattern of the fixed words around the data. So other words, or another order, need no change
here.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from typing import Any

from lab.real_model import desk
from langchain_uno.learning.controls import ANSWERS
from langchain_uno.models.roles import PromptSet
from langchain_uno.records import Message

__all__ = ["NAME", "Roles", "answer_as_teacher", "serve_teacher"]

NAME = "openai:a-program"
"""What ``--teacher`` is given."""

_TURN = "\x1e"
_HOLD = {
    name: f"qx{name}xq"
    for name in ("system", "request", "answer", "edit", "remarks", "rules", "draft", "suggestions")
} | {"suggestion": "qxsuggestionxq", "known": "qxknownxq"}
"""Data of the prompts -> what stands for it."""


Conversation = Sequence[Message]

_ASKED: list[Conversation] = [
    [Message(role="user", content=_HOLD["request"])],
    [
        Message(role="system", content=_HOLD["system"]),
        Message(role="user", content=_HOLD["request"]),
    ],
]
"""Without and with a system turn; later turns are read as more of the request."""

_Way = Callable[[PromptSet, Conversation, Mapping[str, str]], "list[Message] | None"]
_WORDED: dict[str, list[_Way]] = {
    "distil": [lambda p, q, d: p.distil_prompt(q, d["answer"], [d["remarks"]], "en")],
    "distil_edit": [lambda p, q, d: p.distil_edit_prompt(q, d["answer"], d["edit"], "en")],
    "distil_thumbs": [
        lambda p, q, d: p.distil_thumbs_prompt([(q, d["answer"])], [(q, d["edit"])], "en")
    ],
    "predict": [lambda p, q, d: p.predict_prompt(q, "en")],
    "revise_feedback": [lambda p, q, d: p.revise_feedback_prompt(q, [d["remarks"]], "en")],
    "revise_rules": [
        lambda p, q, d: p.revise_rules_prompt(q, d["answer"], [d["rules"]], [d["remarks"]], "en"),
        lambda p, q, d: p.revise_rules_prompt(q, d["answer"], [d["rules"]], [], "en"),
    ],
    "judge": [
        lambda p, q, d: p.judge_prompt(q, [d["rules"]], d["answer"], "en"),
        lambda p, q, d: p.judge_prompt(q, [], d["answer"], "en"),
    ],
    "cover": [lambda p, q, d: p.cover_prompt(d["suggestion"], d["known"])],
    "cover_list": [lambda p, q, d: p.cover_list_prompt(d["suggestion"], [d["known"]])],
    "critique": [lambda p, q, d: p.critique_prompt(q, d["draft"], "en")],
    "revise_draft": [
        lambda p, q, d: p.revise_draft_prompt(q, d["draft"], [d["suggestions"]], "en")
    ],
}
"""Role -> its prompt around place-holders, with and without what may be missing."""


class Roles:
    """Tells which role a prompt asks for, and reads the data out of it.

    Args:
        prompts: the set that words the prompts.
    """

    def __init__(self, prompts: PromptSet) -> None:
        self.prompts = prompts
        self._patterns: list[tuple[int, str, re.Pattern[str]]] = []
        for role, ways in _WORDED.items():
            for way, asked in product(ways, _ASKED):
                worded = way(prompts, asked, _HOLD)
                if worded is not None:
                    text = _flat([(m.role, m.content) for m in worded])
                    self._patterns.append((len(text), role, _pattern(text)))
        # The pattern with the most fixed words first: it says the most.
        self._patterns.sort(key=lambda known: -known[0])

    def read(self, turns: Sequence[tuple[str, str]]) -> tuple[str, dict[str, str]] | None:
        """Return a prompt's role and its data by name; None: it is none of the set's.

        Args:
            turns: role and text of each message.
        """
        text = _flat(turns)
        for _, role, pattern in self._patterns:
            found = pattern.fullmatch(text)
            if found:
                return role, {k: _unquoted(v or "") for k, v in found.groupdict().items()}
        return None


def _unquoted(text: str) -> str:
    """Take the marks from the lines of quoted data; before the first one they are fixed words."""
    return text.replace("\n> ", "\n").replace("\n>\n", "\n\n")


def _flat(turns: Sequence[tuple[str, str]]) -> str:
    return _TURN.join(f"{role}:{text.strip()}" for role, text in turns)


def _pattern(text: str) -> re.Pattern[str]:
    """Return the fixed words of a prompt as a pattern; data may hold further items and turns."""
    seen: set[str] = set()
    parts = []
    for part in re.split("(" + "|".join(_HOLD.values()) + ")", text):
        name = part[2:-2]
        if _HOLD.get(name) != part:
            parts.append(re.escape(part))
        else:
            parts.append(".*?" if name in seen else f"(?P<{name}>.*?)")
            seen.add(name)
    return re.compile("".join(parts), re.DOTALL)


def answer_as_teacher(turns: Sequence[tuple[str, str]], roles: Sequence[Roles]) -> str:
    """Return what an ideal teacher writes; "" where it has no say.

    Args:
        turns: role and text of each message of the prompt.
        roles: of the prompt sets that may have worded it.
    """
    for known in roles:
        found = known.read(turns)
        if found is not None:
            return _play(known.prompts, *found)
    return ""


def _play(prompts: PromptSet, role: str, data: Mapping[str, str]) -> str:
    if role == "distil_thumbs":
        return json.dumps(_set_apart(data))
    request = desk.understand(data.get("request", ""))
    if role == "distil":
        return json.dumps([wish.rule for wish in desk.said_in(data["remarks"])])
    if role in ("cover", "cover_list"):
        wished = desk.by_rule(data["suggestion"])
        covered = wished and wished[0] in desk.by_rule(data["known"])
        return prompts.cover_options[0 if covered else 1]
    if role == "judge" and request is None:
        return json.dumps(_filled(prompts.judge_schema(), *_control(data)))
    if request is None:
        listed = role in ("predict", "distil_edit")
        return json.dumps([]) if listed else data.get("answer") or data.get("draft", "")
    if role == "predict":
        return json.dumps([wish.rule for wish in desk.wishes_of(request)])
    if role == "distil_edit":
        lacking = [w for w in desk.wishes_of(request) if not w.met(request, data["answer"])]
        return json.dumps([w.rule for w in lacking if w.met(request, data["edit"])])
    if role == "revise_rules":
        return desk.mended(request, data["answer"], desk.by_rule(data["rules"]))
    if role == "revise_draft":
        return desk.mended(request, data["draft"], desk.by_rule(data["suggestions"]))
    if role == "judge":
        score, reason = _judgement(request, data["answer"], data.get("rules", ""))
        return json.dumps(_filled(prompts.judge_schema(), score, reason))
    if role == "critique":
        draft = data["draft"]
        lacking = [w.rule for w in desk.wishes_of(request) if not w.met(request, draft)]
        return prompts.critique_completion(lacking)
    return ""  # revise_feedback: a program that sees no answer has nothing to write


_NEXT = re.compile(r"\n\nuser:\n.*?\n[^\n]*:\n", re.DOTALL)
"""What stands between two rated answers: the request of the second."""


def _set_apart(data: Mapping[str, str]) -> list[str]:
    """Return the wishes that liked answers meet oftener than disliked ones, by half at least."""

    def met(side: str, wish: desk.Wish, request: desk.Request) -> float:
        answers = _NEXT.split(data[side])
        return sum(wish.met(request, one) for one in answers) / len(answers)

    request = desk.understand(data["request"])
    if request is None:
        return []
    wishes = desk.wishes_of(request)
    return [w.rule for w in wishes if met("answer", w, request) - met("edit", w, request) >= 0.5]


def _control(data: Mapping[str, str]) -> tuple[int, str]:
    """Judge a control question of a refresh (:mod:`langchain_uno.learning.controls`)."""
    rule, answer = data.get("rules", "").strip(), data["answer"].strip()
    followed = any(known.get(rule) == answer for known in ANSWERS.values())
    return (9, "the rule is followed") if followed else (3, "the rule is not followed")


def _judgement(request: desk.Request, answer: str, rules: str) -> tuple[int, str]:
    """Score an answer: from 3 with no rule followed to 9 with all; 2 where it tells nothing."""
    wished = [wish for wish in desk.by_rule(rules) if wish.holds(request)]
    met = [wish.met(request, answer) for wish in wished]
    score = 3 + round(6 * sum(met) / len(met)) if met else 6
    if not desk.tells(request, answer):
        return 2, "it says nothing about what was asked"
    return score, f"{sum(met)} of {len(met)} rules followed"


def _filled(schema: Mapping[str, Any] | None, score: int, reason: str) -> dict[str, Any]:
    """Return a judgement in the form that a set asks for: its numbers are the score."""
    if schema is None:
        return {"reason": reason, "score": score}
    kinds: dict[str, Any] = {"integer": score, "number": score, "boolean": score >= 7, "array": []}
    return {name: kinds.get(of.get("type"), reason) for name, of in schema["properties"].items()}


class _Endpoint(BaseHTTPRequestHandler):
    roles: Sequence[Roles] = ()
    hear: Callable[[dict[str, Any]], None]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).hear(body)
        turns = [(m["role"], str(m["content"])) for m in body["messages"]]
        text = answer_as_teacher(turns, self.roles)
        said = {"role": "assistant", "content": text}
        used = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        out = json.dumps(
            {
                "id": "answer",
                "object": "chat.completion",
                "created": int(time.time()),
                "model": body.get("model", NAME),
                "choices": [{"index": 0, "finish_reason": "stop", "message": said}],
                "usage": used,
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serve_teacher(
    sets: Sequence[PromptSet], hear: Callable[[dict[str, Any]], None] = lambda body: None
) -> Iterator[str]:
    """Serve the teacher on a free port of this machine; the block may name it by ``--teacher``.

    Inside the block the environment leads LangChain's OpenAI client there.

    Args:
        sets: the prompt sets that may word its prompts.
        hear: is told the body of every request.

    Yields:
        The teacher's name.
    """
    roles = [Roles(prompts) for prompts in sets]
    handler = type("Endpoint", (_Endpoint,), {"roles": roles, "hear": staticmethod(hear)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    wanted = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1",
        "OPENAI_API_KEY": "none",
        "NO_PROXY": "127.0.0.1",
    }
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield NAME
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
        server.shutdown()
        server.server_close()
        thread.join()
