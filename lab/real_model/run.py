"""``python -m lab.real_model.run``: does it learn on a real language model?

    python -m lab.real_model.run --model .models/smollm2 --out .demo-real          # the demo form
    python -m lab.real_model.run --size study --model .models/smollm2 --out .study  # the study
    python -m lab.real_model.run --size study ... --arms all  # and other ways to use the same logs

A week of the help desk (:mod:`.desk`) runs through the feedback handler, the base model answers;
a refresh learns by ``langchain_uno.train`` with a *program* as teacher (:mod:`.teacher`), or with
the model itself (``--teacher self``); other people ask about other things in other words, and a
program checks what comes. Stopped at any time, the same call goes on from there.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal, cast

import typer

from lab.real_model import desk
from lab.real_model.arms import ARMS, Arm, home_of, nearest_rules
from lab.real_model.exam import ask_general, conversation, look_at
from lab.real_model.teacher import serve_teacher
from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.cli.console import clean_exit, out, say
from langchain_uno.cli.progress import Bars
from langchain_uno.demo.asking import Answered, Reply, ask_chat, settle
from langchain_uno.demo.evaluate import summary
from langchain_uno.demo.report import draw_report, print_demo
from langchain_uno.demo.run import Notebook, logged
from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.models.loading import load_embedder, shared_engine
from langchain_uno.models.prompts import PROMPT_SETS, get_prompt_set
from langchain_uno.releases.load import read_current
from langchain_uno.releases.traffic import write_atomic
from langchain_uno.serving.shared import stop_serving
from langchain_uno.train import refresh_home

__all__ = ["SIZES", "Size", "app", "lengths", "run_study", "taught_by", "week"]

Teacher = Literal["program", "self"]

TEACHERS: dict[Teacher, tuple[str, str]] = {
    "program": (
        "The teacher is a program, no model.",
        "The teacher is a program, no model: it knows every wish and every wording. It judges by "
        "the users' rules, and ranks an answer last that has no word of the request, or adds fewer "
        "than three. The model that learns and answers is a real one.",
    ),
    "self": (
        "The model is its own teacher.",
        "The model is its own teacher: it distils, revises and judges what it learns from.",
    ),
}
"""What a run says of its teacher: in a table's head, and below it."""
_BATCH = 32
STUDY = ("terms", "how-to", "delivery", "refund", "account", "advice")
SOMETIMES = ("advice", "stock")


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    kinds: tuple[str, ...]
    each: int
    """Requests of a kind in the week."""
    tests: int
    """Test requests of a kind."""
    tokens: int
    """Most tokens of an answer."""
    general: int
    """General instructions that base and UNO are asked."""
    rivals: bool
    """Whether the base is also asked with rules in the prompt."""
    sets: tuple[str, ...]
    """What the recipe ``default`` is changed by: nothing but its ordinary settings."""
    channel: str | None = None
    """How customers show what they want; None: as their kind of request has it."""
    people: int = 14
    """Customers who react."""


def lengths(tokens: int) -> tuple[str, ...]:
    """Return the settings that every recipe gets, so that all answers are of one length."""
    return (f"answer_tokens={tokens}", f"revision_tokens={tokens}", "role_tokens=64")


def _sets(tokens: int, steps: int) -> tuple[str, ...]:
    """Return what a model of 135 million parameters on two cores changes in ``default``."""
    return (
        *lengths(tokens),
        # An expert whatever the gap is: so small a model measures none, and can't revise a draft.
        "gap.threshold=1.1",
        "pairs.candidates=1",
        "lora.rank=16",
        "lora.batch_size=4",
        # Epochs are added to reach the steps, and the last alone is verified.
        "lora.epochs=1",
        "expert.learning_rate=1e-3",
        "critic.learning_rate=1e-3",
        f"expert.min_steps={steps}",
        # The teacher judges the same answer the same way each time.
        "verify.judgements=1",
    )


SIZES = {
    "demo": Size(("terms", "how-to"), 36, 12, 64, 0, False, _sets(64, 20)),
    "study": Size(STUDY, 36, 20, 72, 40, True, _sets(72, 15)),
    # What the base does sometimes, liked and disliked; and the same said in words.
    "thumbs": Size(SOMETIMES, 120, 40, 72, 40, False, _sets(72, 15), "thumb", 40),
    "words": Size(SOMETIMES, 120, 40, 72, 40, False, _sets(72, 15), "words", 40),
    # Enough people to tell whether an expert is no worse than the critic that taught it.
    "taught": Size(("how-to",), 72, 24, 64, 0, False, _sets(64, 20), "words", 36),
}


def run_study(
    folder: Path,
    model: str,
    seed: int,
    size: Size,
    progress: Any,
    embeddings: str | None = None,
    teacher: Teacher = "program",
    arms: Sequence[str] = (),
    sets: Sequence[str] = (),
) -> dict[str, Any]:
    """Run (or finish) one seed in ``folder`` and return its report as plain data.

    Args:
        folder: where everything goes; empty at first.
        model: folder of the base model.
        seed: of week, refresh and tests.
        size: how much.
        progress: hears how it comes on.
        embeddings: folder of an embedding model; None: the base model's token embeddings.
        teacher: who distils, revises and judges: the program, or the model itself.
        arms: other ways to use the same logs, of :data:`lab.real_model.arms.ARMS`.
        sets: settings in place of the size's, which fit 135 million parameters.

    Returns:
        The report that :func:`langchain_uno.demo.report.print_demo` prints.

    Raises:
        InputError: the folder holds another run, or something else.
        UNOError: a stage failed.
    """
    home = Home.locate(folder)
    notes_file = home.path / "study.json"
    if home.path.is_dir() and any(home.path.iterdir()) and not notes_file.is_file():
        raise InputError(f"{str(folder)!r} is not empty, and no study made it: give another --out.")
    home.ensure()
    size = replace(size, sets=(*size.sets, *sets))
    settings = {"seed": seed, "model": Path(model).name, "teacher": teacher, **asdict(size)}
    notes = Notebook(notes_file, json.loads(json.dumps(settings)))
    notes.save()
    study = _Study(home, model, seed, size, notes, progress, embeddings, teacher)
    try:
        planned = desk.plan_week(
            seed, size.kinds, size.each, channel=size.channel, people=size.people
        )
        week(home, model, planned, size, notes, progress)
        study.refresh("uno", home, Arm(size.sets))
        study.exam("uno", home)
        study.exam("base", home)
        if size.rivals:
            study.exam("RAG over feedback", home)
            study.exam("rules in the prompt", home)
        for name in arms:
            own, arm = home_of(name, home), ARMS[name]
            if arm.recipe == "default":
                arm = replace(arm, changes=(*size.sets, *arm.changes))
            else:
                arm = replace(arm, changes=(*lengths(size.tokens), *arm.changes))
            study.refresh(name, own, arm)
            study.exam(name, own)
    finally:
        stop_serving(home.root)
    report = _report(home, Path(model), seed, size, notes, study.looked_at(), teacher)
    draw_report(report, home.path / "demo.png")
    return report


def taught_by(teacher: Teacher) -> AbstractContextManager[str | None]:
    """Return a block in which a teacher answers; it gives the teacher's name, None: the model."""
    if teacher == "self":
        return nullcontext()
    return serve_teacher([get_prompt_set(name) for name in PROMPT_SETS])


def _chat(
    home: Home,
    model: str,
    size: Size,
    mode: Literal["base", "uno"],
    embeddings: str | None = None,
) -> UNOChatModel:
    return UNOChatModel(
        home=str(home.root), model=model, mode=mode, max_tokens=size.tokens, embedder=embeddings
    )


def week(
    home: Home,
    model: str,
    planned: Sequence[desk.Visit],
    size: Size,
    notes: Notebook,
    progress: Any,
) -> None:
    """Let people ask and react, through the handler; goes on after the last whole batch."""
    progress.start("service", len(planned), "requests and feedback")
    progress.advance("service", notes.data["visits"])
    if notes.data["visits"] < len(planned):
        chat = _chat(home, model, size, "base")
        with UNOFeedbackHandler(home=str(home.root)) as handler:
            while (done := notes.data["visits"]) < len(planned):
                group = planned[done : done + _BATCH]
                with notes.timed("service"):
                    _visits(group, chat, handler, *(_answered(home, group, n) for n in (0, 1)))
                    handler.flush()
                    notes.data["visits"] += len(group)
                progress.advance("service", len(group))
    progress.finish("service")


def _answered(home: Home, group: Sequence[desk.Visit], nth: int) -> dict[int, str]:
    """Return the nth answers of a batch that a stopped call was in the midst of, by place."""
    ids = [str(_run_id(visit, nth)) for visit in group]
    if not home.journal.exists():
        return {}
    with Journal(home.journal) as journal:
        return {ids.index(log.run_id): log.answer for log in journal.interactions(ids)}


def _visits(
    group: Sequence[desk.Visit],
    chat: UNOChatModel,
    handler: UNOFeedbackHandler,
    known: Mapping[int, str],
    followed: Mapping[int, str],
) -> None:
    """Answer a batch of requests and send what their customers do with the answers."""
    asked = [conversation(visit.request) for visit in group]
    # A thumb teaches what the model does sometimes: those customers see sampled answers.
    sampled = [visit.act == "thumb" for visit in group]
    answers = dict(known)
    for thumbs in sorted(set(sampled)):
        mine = [i for i, yes in enumerate(sampled) if yes == thumbs and i not in known]
        if not mine:
            continue
        said = chat.bind(temperature=0.9) if thumbs else chat
        replies = said.batch(
            [asked[i] for i in mine],
            [_config(group[i], handler) for i in mine],  # type: ignore[arg-type]
        )
        answers |= {i: str(reply.content) for i, reply in zip(mine, replies, strict=True)}
    follow: list[tuple[desk.Visit, list[tuple[str, str]]]] = []
    for i, visit in enumerate(group):
        said_next = _react(visit, answers[i], handler)
        if said_next and i not in followed:
            follow.append((visit, [*asked[i], ("assistant", answers[i]), ("user", said_next)]))
    if follow:
        chat.batch([turns for _, turns in follow], [_config(v, handler, 1) for v, _ in follow])


def _run_id(visit: desk.Visit, nth: int = 0) -> uuid.UUID:
    drawn = Random(f"{visit.seed}-{visit.user}-{visit.request.text}").getrandbits(128)
    return uuid.UUID(int=drawn ^ nth, version=4)


def _config(visit: desk.Visit, handler: UNOFeedbackHandler, nth: int = 0) -> Any:
    return {
        "run_id": _run_id(visit, nth),
        "callbacks": [handler],
        "max_concurrency": _BATCH,  # LangChain's own choice is a few threads a core
        "metadata": {"thread_id": f"thread-{_run_id(visit).hex}", "user_id": visit.user},
    }


def _react(visit: desk.Visit, answer: str, handler: UNOFeedbackHandler) -> str | None:
    """Give the feedback of one customer; return the next turn if that is how it is given."""
    request, wishes = visit.request, desk.wishes_of(visit.request)
    missing = [wish for wish in wishes if not wish.met(request, answer)]

    def send(**feedback: Any) -> None:
        handler.feedback(
            str(_run_id(visit)),
            user_id=visit.user,
            source="simulated-user",
            feedback_id=f"{_run_id(visit).hex}-0",
            **feedback,
        )

    if visit.act == "silent":
        return None
    if visit.act == "thumb":
        send(key="dislike" if missing else "like", score=0.0 if missing else 1.0)
        return None
    if visit.act != "noise" and not missing:
        send(key="like", score=1.0)
        return None
    if visit.act == "edit":
        send(key="correction", correction=desk.mended(request, answer, wishes))
        return None
    said = desk.remark(visit, answer)
    if visit.act == "follow_up":
        return said
    send(key="comment", comment=said)
    return None


@dataclass(frozen=True)
class _Study:
    """What every arm of one run shares; what is finished stands in ``notes``."""

    home: Home
    model: str
    seed: int
    size: Size
    notes: Notebook
    progress: Any
    embeddings: str | None
    teacher: Teacher

    @property
    def tests(self) -> list[desk.Request]:
        """What every system is asked."""
        held_out = desk.held_out(self.seed, self.size.kinds, self.size.tests)
        return [visit.request for visit in held_out]

    def refresh(self, name: str, home: Home, arm: Arm) -> None:
        """Let one arm learn."""
        known = self.notes.data.setdefault("refreshes", {})
        if name in known:
            return
        stop_serving(self.home.root)
        timed = self.notes.timed(_timed("refresh", name))
        with taught_by(self.teacher) as url, timed, arm.changed():
            result = refresh_home(
                home.root,
                model=self.model,
                recipe=arm.recipe,
                sets=arm.changes,
                seed=self.seed,
                teacher=url,
                embeddings=self.embeddings,
                progress=self.progress,
            )
            known[name] = result.model_dump(mode="json")

    def exam(self, name: str, home: Home) -> None:
        """Ask one system the test requests, and general instructions."""
        kept = self.notes.data.setdefault("answers", {})
        general = self.notes.data.setdefault("general", {})
        learnt = name in self.notes.data["refreshes"]
        chat = _chat(home, self.model, self.size, "uno" if learnt else "base", self.embeddings)
        if name not in kept:
            settle(chat, home)
            asked = [
                conversation(request, rules)
                for request, rules in zip(self.tests, self._rules(name), strict=True)
            ]
            self.progress.start("evaluate", len(asked), f"test requests: {name}")
            heard: Callable[[int], None] = lambda n: self.progress.advance("evaluate", n)  # noqa: E731
            with self.notes.timed(_timed("evaluate", name)):
                kept[name] = [asdict(reply) for reply in ask_chat(chat, asked, heard)]
            self.progress.finish("evaluate")
        if self.size.general and (learnt or name == "base") and name not in general:
            settle(chat, home)
            with self.notes.timed(_timed("general", name)):
                general[name] = ask_general(chat, self.size.general)
        if home is not self.home:
            stop_serving(home.root)

    def _rules(self, name: str) -> list[list[str]]:
        """Return the rules that a system puts into the prompt of each test request."""
        if name not in ("rules in the prompt", "RAG over feedback"):
            return [[] for _ in self.tests]
        refreshed = self.notes.data["refreshes"]["uno"]
        if name == "rules in the prompt":
            rules = {c["id"]: c["rules"] for c in refreshed["clusters"]}
            return [
                rules.get(row["cluster"] or "", []) for row in self.notes.data["answers"]["uno"]
            ]
        embedder = load_embedder(self.embeddings, shared_engine(self.model))
        texts = [request.text for request in self.tests]
        return nearest_rules(self.home, refreshed["refresh_id"], texts, embedder)

    def looked_at(self) -> dict[str, list[Answered]]:
        """Return every system's answers, checked; the base's first."""
        kept, tests = self.notes.data["answers"], self.tests
        return {
            name: [look_at(r, _reply(row)) for r, row in zip(tests, kept[name], strict=True)]
            for name in ["base", *(name for name in kept if name != "base")]
        }


def _timed(what: str, name: str) -> str:
    return what if name in ("uno", "base") else f"{what}, {name}"


def _reply(row: dict[str, Any]) -> Reply:
    return Reply(**{**row, "tokens": tuple(row["tokens"])})


def _report(
    home: Home,
    model: Path,
    seed: int,
    size: Size,
    notes: Notebook,
    answers: dict[str, list[Answered]],
    teacher: Teacher,
) -> dict[str, Any]:
    note, closing = TEACHERS[teacher]
    tests = desk.held_out(seed, size.kinds, size.tests)
    kinds, people = [v.request.kind for v in tests], [v.user for v in tests]
    release = read_current(home)
    adapters = [a.n_bytes for a in release.manifest.adapters] if release else []
    base = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    return {
        **summary(kinds, people, answers, release),
        "model": model.name,
        "words": {
            "score": "wishes met",
            "facts": "on topic",
            "note": note,
            "closing": f"{closing} 'On topic' looks for the thing that was asked about; whether "
            "what is said is true, nobody checks.",
        },
        "general": notes.data["general"],
        "refresh": notes.data["refreshes"]["uno"],
        "log": logged(home),
        "seconds": notes.data["seconds"],
        "examples": _examples(tests, answers),
        "sizes": {"base": base, "adapters": sum(adapters), "n_adapters": len(adapters)},
        "result": {
            "seed": seed,
            "model": model.name,
            "teacher": teacher,
            "users": people,
            "kinds": kinds,
            "answers": {name: _columns(rows) for name, rows in answers.items()},
            "general": notes.data["general"],
            "clusters": notes.data["refreshes"]["uno"]["clusters"],
            "arms": {
                name: [{k: v for k, v in c.items() if k != "rules"} for c in result["clusters"]]
                for name, result in notes.data["refreshes"].items()
                if name != "uno"
            },
            "seconds": notes.data["seconds"],
        },
    }


def _columns(rows: Sequence[Answered]) -> dict[str, list[float]]:
    return {
        "score": [round(a.score, 2) for a in rows],
        "facts": [100 * int(a.facts) for a in rows],
        "unwanted": [100 * int(a.unwanted) for a in rows],
        "tokens_in": [a.tokens_in for a in rows],
        "tokens_out": [a.tokens_out for a in rows],
        "seconds": [round(a.seconds, 4) for a in rows],
    }


def _examples(
    tests: Sequence[desk.Visit], answers: dict[str, list[Answered]]
) -> dict[str, dict[str, Any]]:
    """Return the first request of each kind that a module answers, before and after."""
    found: dict[str, dict[str, Any]] = {}
    for visit, base, uno in zip(tests, answers["base"], answers["uno"], strict=True):
        kind = visit.request.kind
        if uno.route in (None, "base") or kind in found:
            continue
        found[kind] = {
            "route": uno.route,
            "query": visit.request.text,
            "family": kind,
            "before": base.text,
            "suggestions": [],
            "after": uno.text,
            "wishes": [
                {"text": w.rule, "before": w.name in base.obeyed, "after": w.name in uno.obeyed}
                for w in desk.wishes_of(visit.request)
            ],
        }
    return found


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def main(
    model: Annotated[Path, typer.Option(help="Folder of the base model; see fetch.py.")] = Path(
        ".models/smollm2"
    ),
    embeddings: Annotated[
        Path | None, typer.Option(help="Folder of an embedding model.", show_default="beside it")
    ] = None,
    out_folder: Annotated[Path, typer.Option("--out", help="Where everything goes.")] = Path(
        ".demo-real"
    ),
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "demo",
    seed: Annotated[int, typer.Option(help="Of week, refresh and tests.")] = 1,
    teacher: Annotated[
        str, typer.Option(help=f"Who distils, revises and judges: {' or '.join(TEACHERS)}.")
    ] = "program",
    arms: Annotated[
        str, typer.Option(help="Other ways to use the same logs: names with ';' between, or all.")
    ] = "",
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of every arm's recipe, say another learning rate."),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Where the figures go too, for the tables of the pages.")
    ] = None,
) -> None:
    """Run the help desk on a real model, and show what came of it."""
    with (
        clean_exit("Stopped. What is finished is kept: the same call again goes on from there."),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FutureWarning)  # transformers' own
        if size not in SIZES:
            raise InputError(f"--size {size!r} is none of {', '.join(SIZES)}.")
        if teacher not in TEACHERS:
            raise InputError(f"--teacher {teacher!r} is none of {', '.join(TEACHERS)}.")
        chosen = list(ARMS) if arms == "all" else [a.strip() for a in arms.split(";") if a.strip()]
        if strange := [name for name in chosen if name not in ARMS]:
            raise InputError(f"--arms has {strange[0]!r}; there are: {'; '.join(ARMS)}.")
        with Bars() as bars:
            folder = str((embeddings or model.parent / "minilm").resolve())
            report = run_study(
                out_folder,
                str(model.resolve()),
                seed,
                SIZES[size],
                bars,
                embeddings=folder,
                teacher=cast(Teacher, teacher),
                arms=chosen,
                sets=sets or (),
            )
        if results is not None:
            own = "-self" if teacher == "self" else ""
            name = f"real-{size}{own}-{report['model']}-seed{seed}.json"
            told = {**report["result"], "size": size, "sets": sets or []}
            write_atomic(results / name, json.dumps(told).encode())
        print_demo(report, Home.locate(out_folder).path, out)
        for system, kept in report["general"].items():
            say(f"General instructions kept by {system}: {kept['kept']} of {kept['asked']}.")


if __name__ == "__main__":
    app()
