"""Thumbs alone against words, on the same answers: what a wish that is met sometimes teaches.

The bundled base meets none of its users' wishes, and nobody can like what a model never does. So
half of a week's answers are the base's, revised by the wishes: they stand for samples of a model
that meets them sometimes. The same people get the same answers in two homes. In one a person gives
a thumb: up where an answer meets every wish, down where it does not. In the other a person who
misses something says so in words, and experts are made of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from lab.studies.results import Result, once
from lab.studies.rivals import revise_by
from langchain_uno.demo.asking import Answered, Asked, Reply, ask_model, held_out, look_at
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.evaluate import by_person
from langchain_uno.demo.run import learn
from langchain_uno.demo.service import Visit, plan_visits
from langchain_uno.demo.speech import say_wishes
from langchain_uno.demo.worlds import World
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.models.loading import load_prompt_set, shared_engine
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Feedback, Interaction, Message
from langchain_uno.serving.shared import stop_serving

__all__ = ["run_thumbs", "tell"]

MET = 0.5
"""Share of the answers that are revised by the wishes."""
CHANGED = {"gap": {"threshold": 2.0}, "cluster": {"min_size": 40}, "lora": {"epochs": 4}}
"""Experts for every cluster, so that pairs and thumbs make the same kind of module; few clusters,
with people enough to verify them; and 64 steps each, to save time."""


def run_thumbs(
    seed: int,
    top: Path,
    scratch: Path,
    progress: Any,
    *,
    families: int = 2,
    visits: int = 160,
    per_family: int = 20,
) -> Result | None:
    """Run (or read) one world and return what thumbs and words taught; None: another is at it.

    Args:
        seed: of the world.
        top: where results lie.
        scratch: where homes lie meanwhile.
        progress: hears how it comes on.
        families: kinds of requests.
        visits: answers that people react to.
        per_family: test requests a family.
    """

    def make(folder: Path) -> Result:
        world = make_world(seed, noise=0.0, families=families)
        week = plan_visits(world, visits)
        answers = _answers(world, week, progress)
        asked = held_out(world, per_family)
        scores: dict[str, list[float]] = {}
        clusters: dict[str, Any] = {}
        for name in ("thumbs", "words"):
            home = Home(folder / name).ensure()
            if not (folder / f"{name}.told").exists():
                tell(home, world, week, answers, in_words=name == "words")
                (folder / f"{name}.told").touch()
            result = learn(home, {"seed": seed, **CHANGED}, progress)
            clusters[name] = [c.model_dump(mode="json", exclude={"rules"}) for c in result.clusters]
            if "base" not in scores:
                scores["base"] = [a.score for a in ask_model(world, home, asked, mode="base")]
            scores[name] = [a.score for a in ask_model(world, home, asked)]
            stop_serving(home.root)
        people = [one.user for one in asked]
        return {
            "seed": seed,
            "visits": visits,
            "liked": sum(_is_met(world, v, a) for v, a in zip(week, answers, strict=True)),
            "score": {name: by_person(row, people) for name, row in scores.items()},
            "clusters": clusters,
        }

    return once(f"thumbs-seed{seed}", top, scratch, make)


def _answers(world: World, week: Sequence[Visit], progress: Any) -> list[Answered]:
    """Return the week's answers: the base's, half of them revised by what their users want."""
    language, engine, recipe = world.language(), shared_engine(None), load_recipe("bundled")
    progress.start("answers", 2 * len(week), "half of them revised by the wishes")
    asked = [Asked(v.user.id, v.query, world.wishes(language, v.query)) for v in week]
    requests = [
        GenerateRequest(_messages(visit), None, Sampling(max_tokens=recipe.answer_tokens))
        for visit in week
    ]
    drafts = [
        look_at(world, one, Reply(made.text))
        for one, made in zip(asked, engine.generate(requests), strict=True)
    ]
    progress.advance("answers", len(week))
    texts = {
        one.query.text: [language.rules[rule].text for rule in one.wishes]
        for one in asked
        if Random(f"met-{world.seed}-{one.query.text}").random() < MET
    }
    revised = revise_by(
        lambda queries: [texts.get(query, []) for query in queries],
        world,
        asked,
        drafts,
        engine,
        load_prompt_set(recipe.prompt_set),
        recipe,
    )
    progress.finish("answers")
    return revised


def _messages(visit: Visit) -> list[Message]:
    return [Message(role="user", content=visit.query.text)]


def _is_met(world: World, visit: Visit, answer: Answered) -> bool:
    return set(world.wishes(world.language(), visit.query)) <= set(answer.obeyed)


def tell(
    home: Home, world: World, week: Sequence[Visit], answers: Sequence[Answered], *, in_words: bool
) -> None:
    """Write a week's answers into a home's journal, with what people said of them.

    Args:
        home: an empty one.
        world: theirs.
        week: the visits.
        answers: one a visit.
        in_words: whether who misses something says so; else that is a thumb down.
    """
    language = world.language()
    with Journal(home.journal) as journal:
        for visit, answer in zip(week, answers, strict=True):
            run = str(visit.run_id)
            journal.append_interaction(
                Interaction(
                    run_id=run,
                    messages=_messages(visit),
                    answer=answer.text,
                    user_id=visit.user.id,
                    thread_id=visit.thread_id,
                )
            )
            missing = set(world.wishes(language, visit.query)) - set(answer.obeyed)
            said: dict[str, Any] = {"key": "like", "score": 1.0}
            if missing and in_words:
                rng = Random(f"said-{run}")
                words = say_wishes(
                    language, sorted(missing), rng, unseen_frames=True, unseen_wordings=False
                )
                said = {"key": "comment", "comment": " ".join(words)}
            elif missing:
                said = {"key": "dislike", "score": 0.0}
            journal.append_feedback(Feedback(run_id=run, user_id=visit.user.id, **said))
