"""Training examples of every role for the bundled model, drawn from the seen half of the world.

Each example is chat messages whose last turn is the model's; forms come from the bundled prompt
set, so training and use can't drift apart. Mixture and remedies follow measurements in
lab/experiments.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from lab.bundled.corrupt import corrupt, flawed_clause, judge_evidence
from lab.bundled.odd import OddWords, babble
from lab.bundled.tools import tool_example
from langchain_uno.demo.answers import Query, check_answer, render_answer
from langchain_uno.demo.drawing import make_query
from langchain_uno.demo.language import Language, cap, load_language
from langchain_uno.demo.speech import noise_line, say_wishes, wording
from langchain_uno.models.prompts.bundled import BundledPromptSet
from langchain_uno.records import Message

__all__ = ["MIX", "Curriculum", "Example"]

MIX = {
    "distil": 0.25,
    "revise": 0.18,
    "copy": 0.10,
    "compare": 0.06,
    "cover": 0.06,
    "answer": 0.10,
    "judge": 0.17,
    "critique": 0.03,
    "predict": 0.02,
    "tool": 0.03,
}
"""Share of examples per role."""

GREETING = "How can I help you?"
"""What the model says to small talk."""


@dataclass(frozen=True)
class Example:
    """One training example: the last message is the completion."""

    role: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


class Curriculum:
    """Draws examples from one random stream; the same seed gives the same stream."""

    def __init__(self, seed: int, language: Language | None = None) -> None:
        """Start a stream."""
        self.rng = Random(f"curriculum-{seed}")
        self.language = language or load_language()
        self.prompts = BundledPromptSet()
        self.odd = OddWords(self.language, self.rng)
        self._roles = list(MIX)
        self._weights = list(MIX.values())
        self._makers: dict[str, Callable[[], Example]] = {
            "distil": self._distil,
            "revise": self._revise,
            "copy": self._copy,
            "compare": self._compare,
            "cover": self._cover,
            "answer": self._answer,
            "judge": self._judge,
            "critique": self._critique,
            "predict": self._predict,
            "tool": self._tool,
        }

    def draw(self, role: str | None = None) -> Example:
        """Return the next example, of a given role or of the mixture."""
        chosen = role or self.rng.choices(self._roles, self._weights)[0]
        return self._makers[chosen]()

    # -- parts ---------------------------------------------------------------------------------

    def query(self) -> Query:
        """A request from the seen half, or one in random words about random things.

        Copying and reading stay general only when any word may have to be copied and any frame may
        have to be read: trained on the seen frames alone, the model answered 100 % of them and 63 %
        of the unseen ones (lab/experiments.md).
        """
        rng, language = self.rng, self.language
        family = rng.choice(list(language.families.values()))
        query = make_query(language, family, rng, unseen=False)
        facts = tuple(self.odd.fact() if rng.random() < 0.5 else f for f in query.facts)
        text = query.text.replace("; ".join(query.facts), "; ".join(facts))
        if rng.random() < 0.5:
            frame = self.odd.request(query.kind, query.entity, "; ".join(facts))
            seen = next(f for f in (*family.frames, "") if _fits(f, query))
            seen = seen.format(kind=query.kind, entity=query.entity, facts="; ".join(facts))
            text = text.replace(seen, frame) if seen else frame
        return Query(query.family, query.kind, query.entity, facts, query.attributes, text)

    def rules(self, most: int, least: int = 1) -> list[str]:
        """Random rules, at most one layout, in random order."""
        picked: list[str] = []
        ids = list(self.language.rules)
        count = self.rng.randint(least, most)
        layout = False
        for rule in self.rng.sample(ids, len(ids)):
            if len(picked) == count:
                break
            if self.language.rules[rule].place == "layout":
                if layout:
                    continue
                layout = True
            picked.append(rule)
        return picked

    def _wordings(self, rules: Sequence[str]) -> list[str]:
        """Rules as texts: mostly canonical, else as a user would word them."""
        out = []
        for rule in rules:
            if self.rng.random() < 0.7:
                out.append(self.language.rules[rule].text)
            else:
                out.append(cap(wording(self.language, rule, self.rng, unseen=False)) + ".")
        return out

    def _feedback(self, rules: Sequence[str]) -> list[str]:
        """Turns that ask for ``rules``, with small talk, odd frames and odd words around them."""
        rng, language = self.rng, self.language
        turns = (
            say_wishes(language, rules, rng, unseen_frames=False, unseen_wordings=False)
            if rules
            else []
        )
        if rules and rng.random() < 0.4:
            words = [wording(language, r, rng, unseen=False) for r in rules]
            turns = [" ".join(self.odd.frame(w) for w in self._joined(words))]
        extra = 0.25 if rules else 1.0
        while rng.random() < extra:
            line = self._noise()
            place = rng.randint(0, len(turns))
            if turns and rng.random() < 0.6:
                i = rng.randrange(len(turns))
                turns[i] = f"{line} {turns[i]}" if rng.random() < 0.5 else f"{turns[i]} {line}"
            else:
                turns.insert(place, line)
            extra = 0.25
        return turns

    def _joined(self, words: Sequence[str]) -> list[str]:
        """Wishes, some of them in one clause: a second one after "and" is a wish like the first."""
        rng, out = self.rng, [words[0]]
        for word in words[1:]:
            if rng.random() < 0.5:
                out[-1] += rng.choice((" and ", " and ", ", ", " and to ", " and please ")) + word
            else:
                out.append(word)
        return out

    def _noise(self) -> str:
        """A line that asks for nothing: of the list, or random words in a request's shape."""
        rng = self.rng
        draw = rng.random()
        if draw < 0.12:
            return babble(self.language, rng)
        if draw < 0.2:
            words = [self.odd.word() for _ in range(rng.randint(1, 3))]
            frames = self.language.feedback["frames"]
            odd = " ".join((rng.choice(self.language.lexicon["verbs"]), *words))
            return (
                self.odd.frame(odd)
                if rng.random() < 0.6
                else rng.choice(frames).format(w=odd, W=cap(odd))
            )
        return noise_line(self.language, rng, unseen=False)

    def _user(self, query: Query) -> list[Message]:
        return [Message(role="user", content=query.text)]

    def _said(self, role: str, prompt: list[Message], completion: str) -> Example:
        return Example(role, [*prompt, Message(role="assistant", content=completion)])

    # -- roles ---------------------------------------------------------------------------------

    def _distil(self) -> Example:
        rules = [] if self.rng.random() < 0.25 else self.rules(self.rng.choice((1, 2, 2, 3, 4)))
        prompt = self.prompts.distil_prompt([], "", self._feedback(rules), "en")
        texts = [self.language.rules[r].text for r in rules]
        return self._said("distil", prompt, _json_list(texts))

    def _predict(self) -> Example:
        query = self.query()
        prior = self.language.families[query.family].prior
        prompt = self.prompts.predict_prompt(self._user(query), "en")
        return self._said(
            "predict", prompt, _json_list([self.language.rules[r].text for r in prior])
        )

    def _revise(self) -> Example:
        query, rng = self.query(), self.rng
        rules = self.rules(rng.choice((1, 2, 3, 3, 4, 5)))
        if rng.random() < 0.25:
            if rng.random() < 0.15:
                rules = []
            prompt = self.prompts.revise_feedback_prompt(
                self._user(query), self._feedback(rules), "en"
            )
        else:
            prompt = self.prompts.revise_rules_prompt(
                self._user(query), "", self._wordings(rules), [], "en"
            )
        return self._said("revise", prompt, render_answer(self.language, query, rules))

    def _answer(self) -> Example:
        rng, language = self.rng, self.language
        messages: list[Message] = []
        if rng.random() < 0.3:
            messages.append(Message(role="system", content=rng.choice(language.lexicon["systems"])))
        draw = rng.random()
        if draw < 0.1:
            line = (
                babble(language, rng)
                if rng.random() < 0.3
                else noise_line(language, rng, unseen=False)
            )
            messages.append(Message(role="user", content=line))
            return self._said("answer", messages, GREETING)
        query = self.query()
        rules: list[str] = []
        if draw < 0.25:  # a conversation before: small talk or another request
            if rng.random() < 0.5:
                messages += [
                    Message(role="user", content=noise_line(language, rng, unseen=False)),
                    Message(role="assistant", content=GREETING),
                ]
            else:
                other = self.query()
                messages += [
                    Message(role="user", content=other.text),
                    Message(role="assistant", content=render_answer(language, other, [])),
                ]
        messages.append(Message(role="user", content=query.text))
        if draw > 0.8:  # the user asks again, with wishes
            rules = self.rules(2)
            messages.append(Message(role="assistant", content=render_answer(language, query, [])))
            wish = say_wishes(language, rules, rng, unseen_frames=False, unseen_wordings=False)
            messages.append(Message(role="user", content=" ".join(wish)))
        return self._said("answer", messages, render_answer(language, query, rules))

    def _judge(self) -> Example:
        query, rng, language = self.query(), self.rng, self.language
        asked = self.rules(4, least=0 if rng.random() < 0.1 else 1)
        met = [r for r in asked if rng.random() < rng.choice((1.0, 1.0, 0.6, 0.3))]
        layout = any(language.rules[r].place == "layout" for r in met)
        if rng.random() < 0.45:  # obeys other rules than those asked
            met += [
                r
                for r in self.rules(3)
                if r not in asked and not (layout and language.rules[r].place == "layout")
            ]
        text = render_answer(language, query, met)
        if rng.random() < 0.55:
            text = corrupt(language, query, text, rng)
        return self.judge_example(query, asked, text)

    def judge_example(self, query: Query, asked: Sequence[str], answer: str) -> Example:
        """The true judgement of any answer, by program (also used on the model's own answers)."""
        prompt = self.prompts.judge_prompt(self._user(query), self._wordings(asked), answer, "en")
        evidence = judge_evidence(self.language, query, asked, answer)
        return self._said("judge", prompt, evidence)

    def _cover(self) -> Example:
        rng, language = self.rng, self.language
        a = rng.choice(list(language.rules))
        b = a if rng.random() < 0.5 else rng.choice([r for r in language.rules if r != a])

        def text(rule: str) -> str:
            if rng.random() < 0.5:
                return language.rules[rule].text
            return cap(wording(language, rule, rng, unseen=False)) + "."

        prompt = self.prompts.cover_prompt(text(a), text(b))
        return self._said("cover", prompt, "yes" if a == b else "no")

    def _critique(self) -> Example:
        query, language = self.query(), self.language
        prior = language.families[query.family].prior
        shown = [r for r in prior if self.rng.random() < 0.3]
        if self.rng.random() < 0.3:
            layout = any(language.rules[r].place == "layout" for r in shown)
            shown += [
                r for r in self.rules(2) if not (layout and language.rules[r].place == "layout")
            ]
        draft = render_answer(language, query, shown)
        met = check_answer(language, query, draft).met
        missing = [language.rules[r].text for r in prior if r not in met]
        prompt = self.prompts.critique_prompt(self._user(query), draft, "en")
        return self._said("critique", prompt, self.prompts.critique_completion(missing))

    def _copy(self) -> Example:
        """Short copy tasks: copying does not emerge without them, and is lost when they are cut."""
        rng = self.rng
        draw = rng.random()
        if draw < 0.45:
            words = " ".join(self.odd.word() for _ in range(rng.randint(2, 10)))
            data = out = f"say {words}"
        elif draw < 0.6:
            query = self.query()
            data, out = f"name it: {query.text}", f"the {query.kind} {query.entity}"
        else:
            facts = [self.odd.fact() for _ in range(rng.randint(2, 4))]
            if draw < 0.8:
                i = rng.randrange(len(facts))
                data, out = f"fact {i + 1}: {'; '.join(facts)}", facts[i]
            else:
                data = f"list: {'; '.join(facts)}"
                out = "\n".join(f"{i}. {cap(f)}." for i, f in enumerate(facts, 1))
        prompt = [Message(role="system", content="copy"), Message(role="user", content=data)]
        return self._said("copy", prompt, out)

    def _compare(self) -> Example:
        """Facts and what became of them: a judgement's evidence lines by themselves.

        The judge copies a flawed version faithfully and then calls it equal: seeing a difference
        of a letter has to be practised apart from the rest (lab/experiments.md).
        """
        rng, query = self.rng, self.query()
        facts = [*query.facts, f"the {query.kind} {query.entity}"]
        rng.shuffle(facts)
        facts = facts[: rng.randint(1, 3)]
        versions = [
            f
            if rng.random() < 0.5
            else flawed_clause(self.language, f, rng, garble=rng.random() < 0.6)
            for f in facts
        ]
        lines = [
            f"{f} | {v} -> {'yes' if f == v else 'no'}"
            for f, v in zip(facts, versions, strict=True)
        ]
        data = f"{'; '.join(facts)}\nAnswer:\n{' '.join(cap(v) + '.' for v in versions)}"
        prompt = [Message(role="system", content="compare"), Message(role="user", content=data)]
        return self._said("compare", prompt, "\n".join(lines))

    def _tool(self) -> Example:
        messages, tools = tool_example(self.language, self.rng)
        return Example("tool", messages, tools)


def _json_list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{t}"' for t in texts) + "]"


def _fits(frame: str, query: Query) -> bool:
    """Whether a frame made the request."""
    made = frame.format(kind=query.kind, entity=query.entity, facts="; ".join(query.facts))
    return made in query.text
