"""``langchain-uno evaluate``: what a release is worth, on requests that nothing learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langchain_uno.cli.console import (
    EmbeddingsOption,
    JsonOption,
    ModelOption,
    QuietOption,
    at_home,
    print_json,
    say,
)
from langchain_uno.cli.progress import Bars
from langchain_uno.errors import InputError
from langchain_uno.home import Home

app = typer.Typer(no_args_is_help=True, help="Answer a benchmark with a release.")


@app.command()
@at_home("Stopped. Answers that are written stay: the same call again asks the rest.")
def memorybench(
    place: Home,
    rows: Annotated[Path, typer.Argument(help="Rows of a test split, one JSON object a line.")],
    out_: Annotated[Path, typer.Option("--out", help="Where the predictions go (JSON).")],
    mode: Annotated[str, typer.Option(help="uno, single or base.")] = "uno",
    model: ModelOption = None,
    embeddings: EmbeddingsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Answer MemoryBench's test rows, for its own evaluate().

    First import the train split with `logs import` and run `train`. A test request that is in the
    log is refused. The same call again asks the rows that --out does not hold yet.

        langchain-uno evaluate memorybench test.jsonl --out predictions.json --home bench

    Exit codes: 0 done, 2 bad argument or row, or a test request is in the log, 3 no such home, 4 no
    such model, 9 the release was refused (another base model or embedder, say), 130 stopped.
    """
    if mode not in ("uno", "single", "base"):
        raise InputError(f"--mode must be uno, single or base, not {mode!r}.")
    from langchain_uno.cli.memorybench import predict, read_test_rows

    asked = read_test_rows(rows)
    with Bars(quiet, as_json=as_json) as bars:
        bars.start("answers", len(asked))
        found = predict(
            place,
            asked,
            out_,
            mode=mode,
            model=model,
            embeddings=embeddings,
            on_done=lambda n: bars.advance("answers", n),
        )
        bars.finish("answers")
    if as_json:
        print_json({"predictions": len(found), "out": str(out_)})
    else:
        say(f"{len(found)} predictions in {out_}: MemoryBench's evaluate() grades them.")
