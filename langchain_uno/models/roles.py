"""The typed prompt interface: what each role of the method gets and gives, in no particular words.

A *prompt set* (``models/prompts/``) is versioned data that words these roles for a kind of model.
Pipelines only ever touch this interface, so the bundled model's short prompts and the real models'
English and Chinese ones are interchangeable. Users' text enters prompts as delimited data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from langchain_uno.records import Message

Answered = tuple[Sequence[Message], str]
"""A conversation, and an answer to it."""


class RoleError(ValueError):
    """A text lacks the form its role asks for; the caller drops or retries it."""


class PromptSet(ABC):
    """Words the roles. ``messages`` arguments are the conversation up to the logged answer.

    Every ``*_prompt`` returns chat messages ready for an engine; every ``parse_*`` takes the
    model's text and raises :class:`RoleError` when it does not have the asked form.
    """

    fingerprint = ""
    """Name and version of the set; stored in releases."""
    cover_options = ("yes", "no")
    """The two answer words, yes first."""
    lacks: frozenset[str] = frozenset()
    """Roles that it has no words for; others do without them."""

    @abstractmethod
    def supports(self, language: str) -> bool:
        """Whether the set has prompts for ``language`` ("en", "zh", ...)."""

    @abstractmethod
    def worded(self, role: str, language: str, **data: Any) -> list[Message]:
        """Return the prompt of a role.

        Args:
            role: ``distil``, ``distil_edit``, ``distil_thumbs``, ``predict``, ``revise_feedback``,
                ``revise``, ``judge``, ``cover``, ``cover_list`` or ``critique``.
            language: of the conversation; empty: of the suggestion.
            data: what the role is shown: ``conversation``, ``answer``, ``remarks``, ``edit``,
                ``rules``, ``suggestion``, ``known``, ``draft``, ``liked``, ``disliked``.
        """

    def _if_worded(self, role: str, language: str, **data: Any) -> list[Message] | None:
        return None if role in self.lacks else self.worded(role, language, **data)

    def distil_prompt(
        self, messages: Sequence[Message], answer: str, feedback: Sequence[str], language: str
    ) -> list[Message]:
        """Rules with feedback: feedback turns (numbered by the set) -> JSON list of rules."""
        shown = {"conversation": messages, "answer": answer, "remarks": feedback}
        return self.worded("distil", language, **shown)

    def distil_edit_prompt(
        self, messages: Sequence[Message], answer: str, edit: str, language: str
    ) -> list[Message] | None:
        """What the user's edit of the answer changes -> JSON list of rules; None: no such role."""
        shown = {"conversation": messages, "answer": answer, "edit": edit}
        return self._if_worded("distil_edit", language, **shown)

    def distil_thumbs_prompt(
        self, liked: Sequence[Answered], disliked: Sequence[Answered], language: str
    ) -> list[Message] | None:
        """What sets liked answers apart from disliked ones -> JSON list; None: no such role."""
        return self._if_worded("distil_thumbs", language, liked=liked, disliked=disliked)

    def predict_prompt(self, messages: Sequence[Message], language: str) -> list[Message]:
        """Rules without feedback: what the model would guess from the query alone, at most 5."""
        return self.worded("predict", language, conversation=messages)

    @abstractmethod
    def parse_rules(self, text: str) -> list[str]:
        """Parse the output of distil and predict: a JSON list of strings (may be empty)."""

    @abstractmethod
    def rules_schema(self, max_rules: int | None = None) -> dict[str, Any]:
        """JSON schema of that list, for engines that can constrain."""

    def revise_feedback_prompt(
        self, messages: Sequence[Message], feedback: Sequence[str], language: str
    ) -> list[Message]:
        """A better answer from the raw feedback, without the old answer (paper, stage 2a)."""
        return self.worded("revise_feedback", language, conversation=messages, remarks=feedback)

    def revise_rules_prompt(
        self,
        messages: Sequence[Message],
        answer: str,
        rules: Sequence[str],
        feedback: Sequence[str],
        language: str,
    ) -> list[Message]:
        """A better answer from rules, feedback and the old answer (paper, stage 2b)."""
        shown = {"conversation": messages, "answer": answer, "rules": rules, "remarks": feedback}
        return self.worded("revise", language, **shown)

    def judge_prompt(
        self, messages: Sequence[Message], rules: Sequence[str], answer: str, language: str
    ) -> list[Message]:
        """Score one answer 1-10 with the rules as the primary standard."""
        return self.worded("judge", language, conversation=messages, rules=rules, answer=answer)

    @abstractmethod
    def parse_judgement(self, text: str) -> float:
        """Parse a judgement, whose score in [1, 10] stands behind its reason (paper, stage 3)."""

    def judge_schema(self) -> dict[str, Any] | None:
        """JSON schema of a judgement, or None when the set's form is not JSON."""
        return None

    def cover_prompt(self, suggestion: str, known: str) -> list[Message]:
        """Is the suggestion covered by the known rule? The next token is ``yes`` or ``no``."""
        return self.worded("cover", "", suggestion=suggestion, known=known)

    def cover_list_prompt(self, suggestion: str, known: Sequence[str]) -> list[Message] | None:
        """Is it covered by the list of known rules? None: a set that asks rule by rule."""
        return self._if_worded("cover_list", "", suggestion=suggestion, known=known)

    def critique_prompt(
        self, messages: Sequence[Message], draft: str, language: str
    ) -> list[Message]:
        """Query + draft -> numbered suggestions (the critic's prompt, training and serving)."""
        return self.worded("critique", language, conversation=messages, draft=draft)

    @abstractmethod
    def critique_completion(self, rules: Sequence[str]) -> str:
        """The critic's training target: the rules, numbered (paper, stage 8)."""

    @abstractmethod
    def parse_critique(self, text: str) -> list[str]:
        """The suggestions of a critique; an empty list means that nothing should change."""

    def revise_draft_prompt(
        self, messages: Sequence[Message], draft: str, suggestions: Sequence[str], language: str
    ) -> list[Message]:
        """The final answer from query, draft and suggestions (paper, stage 9); as by rules."""
        return self.revise_rules_prompt(messages, draft, suggestions, [], language)
