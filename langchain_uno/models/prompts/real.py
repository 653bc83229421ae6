"""The prompt set for instruction-tuned models, in English and Chinese: the product's own.

The words lie in ``real_en.toml`` and ``real_zh.toml`` beside this file; here stands only how data
is put into them and how answers are read. A change of either changes the fingerprint.

One form serves models of every size: short instructions, examples as turns of the chat, and what is
the same in every prompt of a role first. A revision is the next turn of the conversation itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

from langchain_uno.errors import ConfigError
from langchain_uno.home import read_toml
from langchain_uno.messages import without_thinking
from langchain_uno.models.prompts.data_blocks import clean, numbered, quoted, transcript, turns
from langchain_uno.models.prompts.reading import json_values, numbered_items, string_list
from langchain_uno.models.roles import PromptSet, RoleError
from langchain_uno.records import Message

LANGUAGES = ("en", "zh")
RENDERING = 2
"""Raised when quotations or their order change though the words do not."""

# Which data each role is shown; a file with other placeholders is refused.
_ROLES: dict[str, frozenset[str]] = {
    "distil": frozenset({"conversation", "answer", "remarks"}),
    "distil_edit": frozenset({"conversation", "answer", "edit"}),
    "distil_thumbs": frozenset({"liked", "disliked"}),
    "predict": frozenset({"conversation"}),
    "revise_feedback": frozenset({"remarks"}),
    "revise": frozenset({"rules", "remarks"}),
    "judge": frozenset({"conversation", "rules", "answer"}),
    "cover": frozenset({"suggestion", "known"}),
    "cover_list": frozenset({"suggestion", "known"}),
    "critique": frozenset({"conversation", "draft"}),
}
_DIMENSIONS = ("rules", "content", "form")
_SCORE = re.compile(r"\"?(?:score|分数|评分|得分)\"?\s*[:：=]\s*\"?(\d+(?:\.\d+)?)", re.IGNORECASE)
_HAN = re.compile("[\u4e00-\u9fff]")
_NOTHING = re.compile(r"[\s*\"'“”.。!！:：\-]+|^\s*1\s*[.)、]\s*")


class RealPromptSet(PromptSet):
    """The set named ``"real"``. See :class:`langchain_uno.models.roles.PromptSet`."""

    fingerprint = ""
    """``real-VERSION-HASH``; the hash covers both languages' words and their rendering."""

    def __init__(self) -> None:
        self._files = {language: _Words.load(language) for language in LANGUAGES}
        en, zh = (self._files[language] for language in LANGUAGES)
        if (en.name, en.version) != (zh.name, zh.version):
            raise ConfigError("The prompt set's English and Chinese files differ in version.")
        digest = hashlib.sha256(f"{RENDERING}\n{en.text}\n{zh.text}".encode()).hexdigest()
        self.fingerprint = f"{en.name}-{en.version}-{digest[:12]}"
        self._nothing = {_bare(w.nothing) for w in self._files.values()} | {
            "none", "nothing", "nochanges", "nochange", "nochangesneeded", "nosuggestions",
            "na", "n/a", "无", "没有", "无建议", "没有建议", "无修改", "不需要修改",
        }  # fmt: skip

    def supports(self, language: str) -> bool:
        """Whether logs in ``language`` can be learnt from: English and Chinese, any region."""
        return _primary(language) in LANGUAGES

    def worded(self, role: str, language: str, **data: Any) -> list[Message]:
        """Fill the words in the conversation's language; the English ones ask for any other."""
        if "suggestion" in data:
            language = "zh" if _HAN.search(data["suggestion"]) else "en"
        words = self._files.get(_primary(language), self._files["en"])
        if role not in ("revise", "revise_feedback"):
            return words.render(role, **data)
        before = turns(data.pop("conversation"))
        if role == "revise":
            before.append(Message(role="assistant", content=clean(data.pop("answer"))))
        return _joined([*before, *words.render(role, **data)])

    def parse_rules(self, text: str) -> list[str]:
        """Read a JSON list of rules.

        Raises:
            RoleError: there is none.
        """
        return string_list(text)

    def rules_schema(self, max_rules: int | None = None) -> dict[str, Any]:
        """JSON schema of a list of rules; at most ``max_rules`` of them."""
        schema: dict[str, Any] = {"type": "array", "items": {"type": "string", "minLength": 1}}
        return schema if max_rules is None else {**schema, "maxItems": max_rules}

    def parse_judgement(self, text: str) -> float:
        """Read the JSON object that the schema describes; a broken one by its score field.

        Raises:
            RoleError: there is no score, or it is not in 1 to 10.
        """
        text = without_thinking(text)
        found = [v for v in json_values(text, "{") if isinstance(v, dict) and "score" in v]
        if found:
            return _score(found[-1]["score"])
        # The judge's own score comes last; one quoted from the answer stands before it.
        scores = _SCORE.findall(text)
        if not scores:
            raise RoleError(f"expected a judgement, got {len(text)} characters without a score")
        return _score(scores[-1])

    def judge_schema(self) -> dict[str, Any] | None:
        """JSON schema of a judgement: a few words for each dimension, then the score."""
        parts: dict[str, Any] = {name: {"type": "string"} for name in _DIMENSIONS}
        parts["score"] = {"type": "integer", "minimum": 1, "maximum": 10}
        return {
            "type": "object",
            "properties": parts,
            "required": list(parts),
            "additionalProperties": False,
        }

    def critique_completion(self, rules: Sequence[str]) -> str:
        """The critic's training target: the rules, numbered, one a line."""
        if not rules:
            return self._files["en"].nothing
        return "\n".join(f"{i}. {' '.join(rule.split())}" for i, rule in enumerate(rules, 1))

    def parse_critique(self, text: str) -> list[str]:
        """Read numbered suggestions; empty when the critic says that nothing has to change.

        Raises:
            RoleError: the text is neither a list nor says so.
        """
        if _bare(without_thinking(text)) in self._nothing:
            return []
        try:
            return numbered_items(text)
        except RoleError:
            return string_list(text)  # some models answer in JSON whatever they are asked


class _Words:
    """One language's file, checked."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        data: Mapping[str, Any] = read_toml(text.encode())
        self.name, self.version, self.language = data["name"], data["version"], data["language"]
        self.empty: str = data["words"]["empty"]
        self.nothing: str = data["words"]["nothing"]
        self.answer: str = data["words"]["answer"]
        guard: str = data["guard"]["system"].strip()
        self._roles: dict[str, tuple[list[Message], Template]] = {}
        for role, wanted in _ROLES.items():
            user = Template(data[role]["user"].strip())
            if set(user.get_identifiers()) != wanted:
                raise ConfigError(f"{source}: [{role}] needs the placeholders {sorted(wanted)}.")
            first: list[Message] = []
            if "system" in data[role]:
                system = Template(data[role]["system"].strip()).substitute(nothing=self.nothing)
                first.append(Message(role="system", content=f"{system}\n\n{guard}"))
            for shown in data[role].get("examples", ()):
                given = {name: shown[name] for name in wanted}
                first.append(Message(role="user", content=self._filled(user, given)))
                first.append(Message(role="assistant", content=shown["output"]))
            self._roles[role] = (first, user)

    @classmethod
    def load(cls, language: str) -> _Words:
        name = f"real_{language}.toml"
        path = resources.files("langchain_uno.models.prompts") / name
        return cls(path.read_text(encoding="utf-8").replace("\r\n", "\n"), name)

    def render(self, role: str, **data: Any) -> list[Message]:
        """Return a role's system message and examples (where it has any), then the data."""
        first, user = self._roles[role]
        return [*first, Message(role="user", content=self._filled(user, data))]

    def _filled(self, user: Template, data: Mapping[str, Any]) -> str:
        # one pass: a placeholder inside the data is not filled again
        text = user.substitute({name: self._block(name, value) for name, value in data.items()})
        return text.strip()

    def _block(self, name: str, value: Any) -> str:
        if name == "conversation":  # an example's is its one request
            one = isinstance(value, str)
            return transcript([Message(role="user", content=value)] if one else value)
        if name in ("liked", "disliked"):
            asked = [(self._block("conversation", request), answer) for request, answer in value]
            return "\n\n".join(f"{one}\n{self.answer}\n{quoted(answer)}" for one, answer in asked)
        if name == "remarks":
            return "\n\n".join(quoted(remark) for remark in value)
        return quoted(value) if isinstance(value, str) else numbered(value, self.empty)


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with a user turn that follows one of the user joined to it."""
    out: list[Message] = []
    for message in messages:
        if out and out[-1].role == message.role == "user":
            message = Message(role="user", content=f"{out.pop().content}\n\n{message.content}")
        out.append(message)
    return out


def _score(value: object) -> float:
    """Return a score in [1, 10] from ``8``, ``8.5``, ``"8"`` or ``"8/10"``."""
    text = str(value).strip().removesuffix("/10").strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,2}(\.\d+)?", text):
        raise RoleError("the judgement's score is not a number")
    if not 1 <= float(text) <= 10:
        raise RoleError(f"the judgement's score {text} is not in 1 to 10")
    return float(text)


def _primary(language: str) -> str:
    return re.split(r"[-_]", language.strip().lower(), maxsplit=1)[0]


def _bare(text: str) -> str:
    return _NOTHING.sub("", text.lower())
