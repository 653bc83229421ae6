"""``python -m lab.memorybench``: MemoryBench's rows as the authors cut them, and a dry run.

    python -m lab.memorybench split --task Short-Long --out short-long train/*.jsonl test/*.jsonl
    python -m lab.memorybench dry-run --model .models/smollm2 --embeddings .models/minilm

MemoryBench (arXiv 2510.17281; github.com/LittleDinoC/MemoryBench) keeps each data set as two splits
of rows. A *task* joins data sets of one shape; ``split`` takes their rows from files of the hub
(THUIR/MemoryBench as JSON lines, a split a file, named in the file's path), and writes
``train.jsonl`` and ``test.jsonl``. What is left of a task is what UNO's authors took: LoCoMo and
DialSim are out of Long-Short. Their rows have a corpus to be read first and a dialog for each
memory system, none with a model that has no memory.

``dry-run`` makes rows of that shape from the help desk of :mod:`lab.real_model`, whose users are
simulated, and passes through every step: import, train, evaluate with UNO and with the base, and
the check of shape that MemoryBench's ``evaluate()`` begins with. A program is the teacher. Its
figures mean nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.real_model import desk
from lab.real_model.teacher import serve_teacher
from langchain_uno.cli.console import clean_exit, say
from langchain_uno.errors import InputError
from langchain_uno.models.loading import load_engine
from langchain_uno.models.prompts import PROMPT_SETS, get_prompt_set
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.records import Message

__all__ = ["TASKS", "app", "check_shape", "rows_like", "split_rows"]

TASKS = {
    "Short-Short": ("LexEval-QA", "JRE-L", "NFCats"),
    "Short-Long": ("JuDGE", "HelloBench-Academic&Knowledge-QA", "WritingPrompts"),
    "Long-Long": (
        "LexEval-Judge",
        "WritingBench-Politics&Law",
        "HelloBench-Academic&Knowledge-Writing",
        "WritingBench-Academic&Engineering",
        "HelloBench-Creative&Design",
        "WritingBench-Creative&Design",
    ),
    "Long-Short": ("LexEval-Summarization", "IdeaBench", "LimitGen-Syn"),
}
"""Data sets of a task (MemoryBench, configs/datasets/task.json), less those with a corpus."""
_SMALL = (
    "lora.rank=8",
    "lora.epochs=1",
    "pairs.candidates=1",
    "verify.judgements=1",
    "answer_tokens=48",
    "revision_tokens=48",
    "role_tokens=48",
)
"""Of the dry run, which tries the program and not the model."""
WITH_CORPUS = ("Locomo", "DialSim")
SPLITS = ("train", "test")

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True
)


def split_rows(files: Sequence[Path], task: str, out: Path) -> dict[str, Counter[str]]:
    """Write a task's rows to ``train.jsonl`` and ``test.jsonl`` and return what went where.

    Args:
        files: of rows, a JSON object a line; "train" or "test" stands in a file's name, else in its
            folder's.
        task: one of :data:`TASKS`.
        out: folder of the two files.

    Returns:
        Rows by data set for "train", "test" and "left out".

    Raises:
        InputError: no such task, a file that names no split or both, a line that is no row, or a
            data set of the task without rows in one of the splits.
    """
    if task not in TASKS:
        raise InputError(f"There is no task {task!r}: give one of {', '.join(TASKS)}.")
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*SPLITS, "left out")}
    kept: dict[str, list[str]] = {name: [] for name in SPLITS}
    for file in files:
        named = [s for s in SPLITS if s in file.name] or [
            s for s in SPLITS if s in file.parent.name
        ]
        if len(named) != 1:
            raise InputError(f"{str(file)!r}: its name or folder must say 'train' or 'test'.")
        split = named[0]
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                dataset = json.loads(line)["dataset_name"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{str(file)!r}, line {number}: no row ({error!r}).") from error
            if dataset in TASKS[task]:
                kept[split].append(line)
            counts[split if dataset in TASKS[task] else "left out"][dataset] += 1
    for split in SPLITS:
        if missing := [name for name in TASKS[task] if not counts[split][name]]:
            raise InputError(f"The {split} split has no row of {', '.join(missing)}.")
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        (out / f"{split}.jsonl").write_text("\n".join(kept[split]) + "\n", encoding="utf-8")
    return counts


def rows_like(model: str, seed: int, each: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (split, row): requests of the help desk, answered by the model, in the hub's shape.

    Args:
        model: folder of the model that answers.
        seed: of the week.
        each: requests of each of two kinds in the train split; half as many are in the test split.
    """
    kinds = ("terms", "how-to")
    week = desk.plan_week(seed, kinds, each)
    tests = desk.held_out(seed, kinds, max(each // 2, 1))
    engine = load_engine(model)
    short = Sampling(max_tokens=48)
    asked = [GenerateRequest(_said(v.request.text), None, short) for v in week]
    for number, (visit, answer) in enumerate(zip(week, engine.generate(asked), strict=True)):
        wishes = desk.wishes_of(visit.request)
        missing = [w for w in wishes if not w.met(visit.request, answer.text)]
        dialog = [
            {"role": "user", "content": visit.request.text},
            {"role": "assistant", "content": answer.text or "-"},
        ]
        if missing:
            dialog.append({"role": "user", "content": desk.remark(visit, answer.text)})
        action = {"round": 1, "implicit_action": "dislike" if missing else "like"}
        told = {"dialog": str(dialog), "implicit_feedback": str([{**action, "terminated": False}])}
        yield "train", {**_row(number, visit.request.text), **told}
    for number, visit in enumerate(tests, len(week)):
        yield "test", _row(number, visit.request.text)


def _said(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def _row(index: int, text: str) -> dict[str, Any]:
    info = str({"golden_answer": ""})
    return {
        "test_idx": index,
        "input_prompt": text,
        "dataset_name": "WritingPrompts",
        "lang": "en",
        "info": info,
    }


def check_shape(predictions: Path, rows: Path) -> int:
    """Check predictions as MemoryBench's ``evaluate("task", ...)`` does; return how many there are.

    Raises:
        InputError: one lacks a key or is of another type, or some row has not exactly one.
    """
    found = json.loads(predictions.read_bytes())
    types = {"test_idx": int, "dataset": str, "response": str}
    for number, one in enumerate(found):
        if {key: type(value) for key, value in one.items()} != types:
            raise InputError(f"{str(predictions)!r}: prediction {number} is of another shape.")
    lines = rows.read_text(encoding="utf-8").splitlines()
    wanted = sorted((row["dataset_name"], row["test_idx"]) for row in map(json.loads, lines))
    if sorted((one["dataset"], one["test_idx"]) for one in found) != wanted:
        raise InputError(f"{str(predictions)!r}: not one prediction for every row.")
    return len(found)


@app.command()
def split(
    files: Annotated[list[Path], typer.Argument(help="Rows of the hub, a split a file.")],
    task: Annotated[str, typer.Option(help=f"One of {', '.join(TASKS)}.")],
    out: Annotated[Path, typer.Option(help="Folder of train.jsonl and test.jsonl.")],
) -> None:
    """Cut one task's rows out of the hub's files."""
    with clean_exit():
        for name, counts in split_rows(files, task, out).items():
            told = ", ".join(f"{dataset} {n}" for dataset, n in sorted(counts.items()))
            say(f"{name}: {sum(counts.values())} rows. {told}")
        say(f"Left out of every task: {' and '.join(WITH_CORPUS)}, which have a corpus to read.")


@app.command()
def dry_run(
    model: Annotated[Path, typer.Option(help="Folder of the base model; see fetch.py.")],
    embeddings: Annotated[Path, typer.Option(help="Folder of an embedding model.")],
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/memorybench"),
    seed: Annotated[int, typer.Option(help="Of the rows.")] = 1,
    each: Annotated[int, typer.Option(help="Train rows of each of two kinds.")] = 20,
) -> None:
    """Pass through every step with rows of that shape."""
    with clean_exit():
        out.mkdir(parents=True, exist_ok=True)
        rows = list(rows_like(str(model), seed, each))
        for name in SPLITS:
            lines = [json.dumps(row) for split, row in rows if split == name]
            (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        home = ("--home", str(out / "home"))
        given = (*home, "--model", str(model), "--embeddings", str(embeddings))
        _call("logs", "import", str(out / "train.jsonl"), *home, "--format", "memorybench")
        sets = [word for one in _SMALL for word in ("--set", one)]
        # A model so small can't judge, and a refresh by it ends there.
        with serve_teacher([get_prompt_set(name) for name in PROMPT_SETS]) as teacher:
            _call("train", *given, "--recipe", "paper", "--teacher", teacher, *sets)
        test = out / "test.jsonl"
        for mode in ("uno", "base"):
            written = out / f"{mode}.json"
            asked = ("evaluate", "memorybench", str(test), "--mode", mode, "--out", str(written))
            _call(*asked, *given)
            say(f"{check_shape(written, test)} predictions of the right shape.")


def _call(*words: str) -> None:
    say(f"$ langchain-uno {' '.join(words)}")
    done = subprocess.run([sys.executable, "-m", "langchain_uno", *words], check=False)
    if done.returncode:
        raise InputError(f"That ended with exit code {done.returncode}.")


if __name__ == "__main__":
    app()
