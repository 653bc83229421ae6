"""The bundled model's final test: every role on the unseen half of the world, checked by program.

    python -m lab.bundled.exam --seed 7

Names, frames, fact templates and noise lines never occur in training; rule wordings are tested seen
and unseen apart. Each figure is a share with its count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lab.bundled.corrupt import corrupt, true_score
from lab.bundled.curriculum import Curriculum
from langchain_uno.demo.answers import Check, Query, check_answer, render_answer
from langchain_uno.demo.drawing import make_query
from langchain_uno.demo.language import Language, cap, load_language
from langchain_uno.demo.speech import NOISE_KINDS, say_wishes, wording
from langchain_uno.models.loading import load_engine
from langchain_uno.models.prompts.bundled import BundledPromptSet
from langchain_uno.models.protocols import Engine, GenerateRequest, Sampling
from langchain_uno.models.roles import RoleError
from langchain_uno.records import Message

__all__ = ["Exam", "Figure"]


@dataclass(frozen=True)
class Figure:
    """A share of cases: ``hits`` of ``n``."""

    name: str
    hits: int
    n: int

    @property
    def share(self) -> float:
        """In [0, 1]; 0 when there were no cases."""
        return self.hits / self.n if self.n else 0.0


class Exam:
    """Draws unseen cases from a seed and grades an engine on them, role by role."""

    def __init__(self, engine: Engine, *, seed: int, cases: int = 300) -> None:
        """Prepare an exam of ``cases`` cases a role."""
        self.engine, self.cases = engine, cases
        self.language: Language = load_language()
        self.prompts = BundledPromptSet()
        self.seed = seed
        self.sections: dict[str, Callable[[], list[Figure]]] = {
            "answer": self.answer,
            "distil": self.distil,
            "noise": self.noise,
            "revise": self.revise,
            "judge": self.judge,
            "cover": self.cover,
            "predict": self.predict,
            "critique": self.critique,
            "tool": self.tool,
        }

    # -- sections ------------------------------------------------------------------------------

    def answer(self) -> list[Figure]:
        """Plain answers: facts right and nothing added; half of them late in a conversation."""
        rng, queries = self._rng("answer"), []
        prompts = []
        for i in range(self.cases):
            query = self._query(rng)
            before: list[Message] = []
            if i % 4 == 1:
                before = [
                    Message(role="system", content=rng.choice(self.language.lexicon["systems"]))
                ]
            if i % 4 == 2:
                other = self._query(rng)
                before = [
                    Message(role="user", content=other.text),
                    Message(role="assistant", content=render_answer(self.language, other, [])),
                ]
            queries.append(query)
            prompts.append([*before, Message(role="user", content=query.text)])
        checks = [
            check_answer(self.language, q, t)
            for q, t in zip(queries, self._ask(prompts), strict=True)
        ]
        right = sum(c.facts_right == c.facts and c.entity_right for c in checks)
        plain = sum(not c.extra and not c.met for c in checks)
        return [
            Figure("facts and entity right", right, len(checks)),
            Figure("nothing added", plain, len(checks)),
        ]

    def distil(self) -> list[Figure]:
        """Exact rule sets: seen frames, unseen frames, unseen wordings in unseen frames."""
        out = []
        for name, frames, words in (
            ("exact, seen frames", False, False),
            ("exact, unseen frames", True, False),
            ("exact, unseen frames and wordings", True, True),
        ):
            rng, wanted, prompts = self._rng(name), [], []
            for _ in range(self.cases):
                rules = self._rules(rng, 3)
                turns = say_wishes(
                    self.language, rules, rng, unseen_frames=frames, unseen_wordings=words
                )
                wanted.append({self.language.rules[r].text for r in rules})
                prompts.append(self.prompts.distil_prompt([], "", turns, "en"))
            said = [self._parsed(t) for t in self._ask(prompts)]
            out.append(
                Figure(name, sum(s == w for s, w in zip(said, wanted, strict=True)), len(said))
            )
        return out

    def noise(self) -> list[Figure]:
        """Every unseen noise line (three fillings each) -> no rules."""
        rng, lines = self._rng("noise"), []
        for kind in NOISE_KINDS:
            for line in self.language.feedback["unseen_noise"][kind]:
                lines += [self.language.fill(line, rng, unseen=True) for _ in range(3)]
        said = self._ask([self.prompts.distil_prompt([], "", [line], "en") for line in lines])
        return [
            Figure("unseen noise -> empty", sum(self._parsed(t) == set() for t in said), len(said))
        ]

    def revise(self) -> list[Figure]:
        """Answers rewritten by rules: all rules met, all facts kept, nothing else added."""
        out = []
        for count in (1, 2, 3, 4):
            checks = self._revisions(count, self._rng(f"revise{count}"))
            met = sum(set(rules) <= c.met for rules, c in checks)
            kept = sum(c.faithful for _, c in checks)
            clean = sum(c.met <= set(rules) for rules, c in checks)
            out += [
                Figure(f"{count} rules, all met", met, len(checks)),
                Figure(f"{count} rules, facts kept", kept, len(checks)),
                Figure(f"{count} rules, no other rule", clean, len(checks)),
            ]
        return out

    def _revisions(self, count: int, rng: Random) -> list[tuple[list[str], Check]]:
        queries = [self._query(rng) for _ in range(self.cases)]
        asked = [self._rules(rng, count, least=count) for _ in queries]
        prompts = [
            self.prompts.revise_rules_prompt(_user(q), "", self._texts(r), [], "en")
            for q, r in zip(queries, asked, strict=True)
        ]
        texts = self._ask(prompts)
        return [
            (r, check_answer(self.language, q, t))
            for q, r, t in zip(queries, asked, texts, strict=True)
        ]

    def judge(self) -> list[Figure]:
        """Good above flawed, good above wrong rules, per-rule verdicts, own flawed revisions."""
        rng, language = self._rng("judge"), self.language
        items: list[tuple[Query, list[str], str]] = []
        for _ in range(self.cases):
            query, asked = self._query(rng), self._rules(rng, 3)
            good = render_answer(language, query, asked)
            flawed = good
            while check_answer(language, query, flawed).faithful:
                flawed = corrupt(language, query, good, rng)
            others: list[str] = []
            while not others or any(o in asked for o in others):
                others = self._rules(rng, len(asked), least=len(asked))
            wrong = render_answer(language, query, others)
            items += [(query, asked, good), (query, asked, flawed), (query, asked, wrong)]
        replies = self._judged(items)
        scores = [self._score(t) for t in replies]
        triples = [scores[i : i + 3] for i in range(0, len(scores), 3)]
        truth = [true_score(language, *item) for item in items]
        verdicts = [_verdicts(t, len(i[1])) for t, i in zip(replies, items, strict=True)]
        per_rule = [
            (v == (r in check_answer(language, q, a).met))
            for (q, asked, a), said in zip(items, verdicts, strict=True)
            for r, v in zip(asked, said, strict=True)
        ]
        own = self._own_flaws()
        return [
            Figure("good above flawed facts", sum(g > f for g, f, _ in triples), len(triples)),
            Figure("good below flawed facts", sum(g < f for g, f, _ in triples), len(triples)),
            Figure("good above wrong rules", sum(g > w for g, _, w in triples), len(triples)),
            Figure("per-rule verdict", sum(per_rule), len(per_rule)),
            Figure(
                "exact score", sum(s == t for s, t in zip(scores, truth, strict=True)), len(truth)
            ),
            own,
        ]

    def _own_flaws(self) -> Figure:
        """Sample own revisions hot until some are flawed: how many get less than 10?"""
        rng = self._rng("own")
        flawed: list[tuple[Query, list[str], str]] = []
        for _ in range(6):
            queries = [self._query(rng) for _ in range(200)]
            asked = [self._rules(rng, 3) for _ in queries]
            prompts = [
                self.prompts.revise_rules_prompt(_user(q), "", self._texts(r), [], "en")
                for q, r in zip(queries, asked, strict=True)
            ]
            texts = self._ask(prompts, temperature=1.0, seed=rng.randrange(2**31))
            for q, r, t in zip(queries, asked, texts, strict=True):
                if t.strip() and true_score(self.language, q, r, t) < 10:
                    flawed.append((q, r, t))
            if len(flawed) >= 60:
                break
        noticed = sum(self._score(t) < 10 for t in self._judged(flawed))
        return Figure("own flawed revisions noticed", noticed, len(flawed))

    def cover(self) -> list[Figure]:
        """Is a suggestion in a list of 1 to 5 rules? Pair by pair, the maximum decides."""
        out = []
        for name, unseen in (("canonical", False), ("unseen wordings", True)):
            rng = self._rng(name)
            cases: list[tuple[bool, list[tuple[str, str]]]] = []
            for i in range(self.cases):
                known = self._rules(rng, 1 + i % 5, least=1 + i % 5)
                inside = rng.random() < 0.5
                rest = [r for r in self.language.rules if r not in known]
                rule = rng.choice(known if inside else rest)
                text = (
                    cap(wording(self.language, rule, rng, unseen=True)) + "."
                    if unseen
                    else self.language.rules[rule].text
                )
                cases.append((inside, [(text, k) for k in self._texts(known)]))
            pairs = [p for _, ps in cases for p in ps]
            probabilities = self.engine.choose(
                [self.prompts.cover_prompt(a, b) for a, b in pairs], self.prompts.cover_options
            )[:, 0]
            hits, at = 0, 0
            for inside, ps in cases:
                hits += (probabilities[at : at + len(ps)].max() > 0.5) == inside
                at += len(ps)
            out.append(Figure(f"covered by a list, {name}", int(hits), len(cases)))
        return out

    def predict(self) -> list[Figure]:
        """The family's prior, from an unseen request."""
        rng = self._rng("predict")
        queries = [self._query(rng) for _ in range(self.cases)]
        said = self._ask([self.prompts.predict_prompt(_user(q), "en") for q in queries])
        hits = sum(
            self._parsed(t) == set(self._texts(self.language.families[q.family].prior))
            for q, t in zip(queries, said, strict=True)
        )
        return [Figure("family's prior exact", hits, len(queries))]

    def critique(self) -> list[Figure]:
        """What the prior asks for and the draft lacks."""
        rng, language = self._rng("critique"), self.language
        wanted, prompts = [], []
        for _ in range(self.cases):
            query = self._query(rng)
            prior = language.families[query.family].prior
            shown = [r for r in prior if rng.random() < 0.3]
            wanted.append({language.rules[r].text for r in prior if r not in shown})
            draft = render_answer(language, query, shown)
            prompts.append(self.prompts.critique_prompt(_user(query), draft, "en"))
        said = [set(self.prompts.parse_critique(t)) for t in self._ask(prompts)]
        return [
            Figure(
                "critique exact", sum(s == w for s, w in zip(said, wanted, strict=True)), len(said)
            )
        ]

    def tool(self) -> list[Figure]:
        """Tool name and arguments copied exactly."""
        curriculum = Curriculum(seed=self.seed + 10_000_019)
        requests: list[GenerateRequest] = []
        wanted: list[tuple[str, dict[str, object]]] = []
        while len(requests) < self.cases:
            example = curriculum.draw("tool")
            turn = next(i for i, m in enumerate(example.messages) if m.role == "assistant")
            call = example.messages[turn].tool_calls[0]
            requests.append(
                GenerateRequest(
                    example.messages[:turn],
                    sampling=Sampling(max_tokens=80),
                    tools=example.tools or (),
                )
            )
            wanted.append((call["name"], call["args"]))
        said = self.engine.generate(requests)
        hits = sum(
            bool(g.tool_calls) and (g.tool_calls[0]["name"], g.tool_calls[0]["args"]) == w
            for g, w in zip(said, wanted, strict=True)
        )
        return [Figure("tool call exact", hits, len(wanted))]

    # -- parts ---------------------------------------------------------------------------------

    def _rng(self, what: str) -> Random:
        return Random(f"exam-{self.seed}-{what}")

    def _query(self, rng: Random) -> Query:
        family = rng.choice(list(self.language.families.values()))
        return make_query(self.language, family, rng, unseen=True)

    def _rules(self, rng: Random, most: int, least: int = 1) -> list[str]:
        curriculum = Curriculum(seed=rng.randrange(2**31), language=self.language)
        return curriculum.rules(most, least)

    def _texts(self, rules: Sequence[str]) -> list[str]:
        return [self.language.rules[r].text for r in rules]

    def _ask(
        self,
        prompts: Sequence[Sequence[Message]],
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> list[str]:
        requests = [
            GenerateRequest(
                p,
                sampling=Sampling(
                    temperature=temperature,
                    max_tokens=320,
                    seed=None if seed is None else seed + i,
                ),
            )
            for i, p in enumerate(prompts)
        ]
        return [g.text for g in self.engine.generate(requests)]

    def _judged(self, items: Sequence[tuple[Query, list[str], str]]) -> list[str]:
        return self._ask(
            [self.prompts.judge_prompt(_user(q), self._texts(r), a, "en") for q, r, a in items]
        )

    def _score(self, text: str) -> float:
        try:
            return self.prompts.parse_judgement(text)
        except RoleError:
            return 0.0

    def _parsed(self, text: str) -> set[str] | None:
        try:
            return set(json.loads(text))
        except (json.JSONDecodeError, TypeError):
            return None


def _user(query: Query) -> list[Message]:
    return [Message(role="user", content=query.text)]


def _verdicts(text: str, count: int) -> list[bool | None]:
    lines = text.splitlines()
    out: list[bool | None] = []
    for i in range(1, count + 1):
        line = next((x for x in lines if x.startswith(f"{i}. ")), "")
        out.append(line.endswith("-> yes") if "-> " in line else None)
    return out


def main(
    seed: Annotated[int, typer.Option(help="Of the test set.")] = 7,
    cases: Annotated[int, typer.Option(help="Cases a role.")] = 300,
    model: Annotated[
        str | None, typer.Option(help="Folder; the bundled model if left out.")
    ] = None,
) -> None:
    """Grade the bundled model on every role, on the unseen half of the world."""
    table = Table("figure", "share", "n")
    for section, grade in Exam(load_engine(model), seed=seed, cases=cases).sections.items():
        for figure in grade():
            table.add_row(f"{section}: {figure.name}", f"{100 * figure.share:.1f} %", str(figure.n))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
