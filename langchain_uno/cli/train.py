"""``langchain-uno train``: from the log of a home to a release."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from langchain_uno.cli.console import (
    COUNTED,
    EmbeddingsOption,
    JsonOption,
    ModelOption,
    QuietOption,
    TeacherOption,
    at_home,
    listed,
    out,
    print_json,
    say,
    say_facts,
    visible,
)
from langchain_uno.cli.progress import Bars
from langchain_uno.home import Home
from langchain_uno.records import Stage
from langchain_uno.releases.history import held
from langchain_uno.reports.render import counted, duration

if TYPE_CHECKING:
    from langchain_uno.learning.plan import Plan
    from langchain_uno.learning.work import RefreshResult

_STOPPED = "Stopped. What is finished is kept: the same call again{call} goes on from there."
_COLOURS = {"expert": "green", "critic": "cyan", "base": "dim"}


@at_home(_STOPPED, must_exist=False)
def train(
    place: Home,
    model: ModelOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="'default', 'paper', 'bundled' or a TOML file; `langchain-uno recipe` prints one. "
            "[default: default; bundled for the bundled model]"
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override one value of the recipe, as in --set lora.rank=8. Repeatable.",
        ),
    ] = None,
    embeddings: EmbeddingsOption = None,
    reranker: Annotated[
        str | None,
        typer.Option(
            help="Yes/no reranker for the cognitive gap, as in Qwen/Qwen3-Reranker-0.6B. "
            "[default: the base model]"
        ),
    ] = None,
    teacher: TeacherOption = None,
    generate_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Server of the base model, such as vLLM, that writes its answers while training "
            "stays here; checked before the work begins. [default: the model in this process]",
        ),
    ] = None,
    generate_adapters: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder that it finds adapters in. [default: it loads them from the home]",
        ),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="The most steps of every training, for a quick try.")
    ] = None,
    until: Annotated[
        Stage | None,
        typer.Option(
            metavar="STAGE",
            help="Stop after a stage and print what it counted: filter, distil, cluster, rules, "
            "gap, pairs, train or release.",
        ),
    ] = None,
    promote: Annotated[
        bool,
        typer.Option(
            help="Let the release answer at once; else `langchain-uno releases promote` does."
        ),
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be done and what it would cost, and do nothing: the home is only "
            "read, no teacher is asked.",
        ),
    ] = False,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Stop after so many minutes, at the next end of a piece of work: a call to a "
            "teacher, a cluster, a minute of training. The same call again goes on.",
        ),
    ] = None,
    min_free_gb: Annotated[
        float | None,
        typer.Option(min=0, help="Stop in the same way when fewer GB are free on the home's disk."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, in place of the recipe's.")] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train and verify the clusters on a Ray cluster: 'auto' for this machine, or "
            "HOST:PORT. Its nodes see the home under the same path.",
        ),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Learn from the log of a home: make a release.

    Similar logs form a cluster. Where users want about what the model would guess, or gave thumbs
    alone, an expert is trained, which answers by itself. Where they want something else, or an
    expert fails, a critic is trained: the base model drafts, the critic suggests, the base model
    revises. A module that does not beat the base model on held-out requests is not released. The
    new release answers at once.

        langchain-uno train --home ./home

        langchain-uno train --home ./home --model Qwen/Qwen3-8B --recipe paper

        langchain-uno train --home ./home --until rules --json

        langchain-uno train --home ./home --dry-run

    The second trains a real model with the authors' settings. The third stops once it is known what
    would be taught, and prints {"rules": {"distilled": n, "taught": m, "dropped": {reason: k}}}; a
    call without --until goes on from there. So does the same call after Ctrl-C or a crash.

    In the table "logs" counts all logs of a cluster, and "people" the training people who asked for
    anything. Among a stage's counts "held out" are rules of held-out logs, "recurring" those that
    enough people want for their whole cluster, and "acts dropped" edits and likes that one person
    repeats and few share; "guarded": there are enough people to tell such a plant from a wish.

    A log, a call to a teacher or a cluster that fails is left out and named. The same call again,
    or the next refresh, tries it again.

    Exit codes: 0 done, 2 bad argument, recipe or settings, 3 home missing, read-only or its disk
    full, 4 no such model, 5 home of another model, 6 nothing to learn from, 7 the journal or Chroma
    can't be used, 8 another refresh is running, 9 the new release is refused, 10 a model or teacher
    failed, 11 a limit was reached (call it again), 130 stopped.
    """
    # The libraries' own deprecations are nobody's business at the command line.
    warnings.simplefilter("ignore", FutureWarning)
    from langchain_uno.train import plan_home, refresh_home

    given: dict[str, Any] = {
        "namespace": place.namespace,
        "model": model,
        "recipe": recipe,
        "sets": set_ or [],
        "seed": seed,
        "embeddings": embeddings,
        "reranker": reranker,
        "teacher": teacher,
        "generate_url": generate_url,
        "generate_adapters": generate_adapters,
        "max_steps": max_steps,
    }
    with Bars(quiet, as_json=as_json) as bars:
        if dry_run:
            plan = plan_home(place.root, **given, progress=bars)
        else:
            result = refresh_home(
                place.root,
                **given,
                until=until,
                promote=promote,
                ray=ray,
                max_minutes=max_minutes,
                min_free_gb=min_free_gb,
                progress=bars,
            )
    if dry_run:
        if as_json:
            print_json(plan.model_dump(mode="json"))
        else:
            _show_plan(plan)
        return
    counts = result.stages.get(until, {}) if until else {}
    if as_json:
        print_json({until: counts} if until else result.model_dump(mode="json"))
    elif until is not None and result.release is None:
        _show_stage(until, counts, result)
    else:
        _show(result, place)


def _show_plan(plan: Plan) -> None:
    """Print what a refresh would do, and what it would cost."""
    if plan.unchanged:
        say("Nothing is new since the last refresh: nothing would be done.")
        return
    for note in plan.notes:
        say(f"Note: {note}")
    _say_usable(plan)
    new = "not known, its record was cleared" if plan.new is None else plan.new
    say(f"New since the last refresh: {new}; to be distilled: {plan.to_distil}.")
    if plan.goes_on is not None:
        say(f"An unfinished refresh goes on; it has done: {', '.join(plan.goes_on) or 'nothing'}.")
    table = Table("role", "asked", pad_edge=False, title="Calls, at most")
    for name in ("calls", "tokens in", "tokens out"):
        table.add_column(name, justify="right")
    for role, one in plan.calls.items():
        figures = (one.calls, one.input_tokens, one.output_tokens)
        table.add_row(role, one.who, *(f"{n:,}" for n in figures))
    out.print(table)
    if plan.people < plan.needed:
        gave = counted(plan.people, "person", "people")
        say(
            f"Nothing would be trained: {gave} gave feedback that can be learnt from, about "
            f"{plan.needed} are needed for each kind of request."
        )
    else:
        say(
            f"Training: {plan.steps:,} steps at most, in {counted(plan.clusters, 'cluster')}; a "
            f"step takes about {plan.step_seconds:.2f} s here, and the model writes "
            f"{plan.tokens_per_second:.0f} tokens a second. The clusters are not known yet: a "
            "cluster with too few people is not trained, so this is an upper bound."
        )
    how = "as the last refresh took" if plan.as_last else "at most, without a teacher's time"
    say(f"It would take about {duration(60 * sum(plan.minutes.values()))} ({how}).")
    say("Nothing was done: this was a dry run.")


def _show_stage(stage: str, counts: dict[str, Any], result: RefreshResult) -> None:
    """Print what a stage counted, at which the refresh was to stop."""
    told = {name: value for name, value in counts.items() if name != "seconds"}
    say_facts((k, (listed(v) or "none") if isinstance(v, dict) else v) for k, v in told.items())
    _show_log(result)
    say(f"Stopped after {stage}, nothing released. Without --until the same call goes on.")


def _show(result: RefreshResult, home: Home) -> None:
    """Print the summary: what was learnt and from what, what was not, and where it lies."""
    if result.unchanged:
        if result.current == result.release:
            say(f"Nothing new since release {result.release}: it stands.")
        _show_notes(result)
        return
    if result.clusters:
        out.print(_table(result))
        say(COUNTED)
    for cluster in result.clusters:
        if cluster.note:
            say(f"{cluster.id}: {cluster.note}")
    _show_log(result)
    made = Counter(c.route for c in result.clusters if c.route != "base")
    plain = sum(1 for c in result.clusters if c.route == "base")
    if made:
        n_logs = sum(c.train for c in result.clusters if c.route != "base")
        modules = " and ".join(counted(n, route) for route, n in sorted(made.items(), reverse=True))
        rest = f"; the base model answers {counted(plain, 'other cluster')} as before"
        say(f"{modules}, learnt from {counted(n_logs, 'log')}{rest if plain else ''}.")
    elif result.release:
        verified = any(c.win_rate is not None for c in result.clusters)
        why = "no module passed its check" if verified else "no module was made"
        say(f"Nothing was learnt: {why}, the base model answers as before.")
    if result.resumed:
        say(f"Taken over from an earlier call: {', '.join(result.resumed)}.")
    if result.seconds:
        longest = sorted(result.seconds.items(), key=lambda one: -one[1])[:3]
        told = ", ".join(f"{stage} {duration(s)}" for stage, s in longest)
        say(f"It took {duration(sum(result.seconds.values()))} (longest: {told}).")
    if result.release:
        what = "is current" if made else "has no module"
        if result.current != result.release:
            hold = held(home)
            who = f", held by {visible(hold['by'])}" if hold else ""
            what = f"waits{who}: `langchain-uno releases promote {result.release}` approves it"
        say(f"Release {result.release} {what}; it lies in {home.releases / result.release}")
        if result.report:
            say(f"Report: {result.report}")
    else:
        say("Nothing was released.")


def _table(result: RefreshResult) -> Table:
    table = Table("cluster", title=counted(len(result.clusters), "cluster"), pad_edge=False)
    for name in ("logs", "people", "gap"):
        table.add_column(name, justify="right")
    table.add_column("route")
    table.add_column("win rate")
    for c in result.clusters:
        rate = "-"
        if c.win_rate is not None and c.interval is not None:
            rate = f"{c.win_rate:.2f} ({c.interval[0]:.2f}-{c.interval[1]:.2f})"
        table.add_row(
            c.id,
            str(c.size),
            str(c.people),
            "-" if c.gap is None else f"{c.gap:.2f}",
            Text(c.route, style=_COLOURS.get(c.route, "")),
            rate,
        )
    return table


def _show_log(result: RefreshResult) -> None:
    """Say which logs were used, what waits and whose they are."""
    _say_usable(result)
    if result.waiting:
        pieces = counted(result.waiting, "piece")
        one = f" (one names {result.waits_for!r})" if result.waits_for else ""
        say(f"{pieces} of feedback waiting for the answer meant, which is not in the log yet{one}.")
    if result.without_user:
        say(
            f"{counted(result.without_user, 'log')} without a user: they are one voice together, "
            "or one a conversation where nobody is named, unless rules.voices says otherwise."
        )
    _show_notes(result)


def _say_usable(found: Plan | RefreshResult) -> None:
    """Say how many logs can be learnt from, and why others can't."""
    heard = found.usable + sum(found.dropped.values())
    left_out = f" (left out: {listed(found.dropped)})" if found.dropped else ""
    say(f"{found.usable} of {counted(heard, 'log')} can be learnt from{left_out}.")


def _show_notes(result: RefreshResult) -> None:
    for note in result.notes:
        say(f"Note: {note}")
