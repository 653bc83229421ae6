"""How well a model plays each role of the method, by the product's prompts.

    python -m lab.real_model.roles MODEL [--dialogs real.jsonl] [--out FILE.json]

``items.jsonl`` holds 60 hand-made logs, half English and half Chinese: 40 whose remark holds one
wish or two, 20 whose remark holds none. Each wish has another wording, an opposite one, and a
pattern that tells it in a distilled rule; each log has a better answer and a check that a program
does. Distil is asked about all logs, the other roles about every second one with a wish. All is
greedy.

``--dialogs`` takes real dialogs (one JSON object a line: ``messages`` = query, answer, suggestions,
revised answer), of which the 20 shortest of each language are distilled.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from langchain_uno.learning.distil import distil
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.models.loading import load_engine, load_prompt_set
from langchain_uno.models.protocols import Engine, GenerateRequest, Sampling
from langchain_uno.models.rerankers import EngineReranker
from langchain_uno.models.roles import PromptSet, RoleError
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Feedback, Interaction, Message

ITEMS = Path(__file__).with_name("items.jsonl")
RECIPE = load_recipe("default", {"role_tokens": 128})
DIALOGS = 20
"""Of each language."""
ROLES = "distil,revise,judge,cover,critique"


def read_items() -> list[dict[str, Any]]:
    """Return the hand-made logs."""
    return [json.loads(line) for line in ITEMS.read_text(encoding="utf-8").splitlines()]


def meets(check: dict[str, Any], answer: str) -> bool:
    """Return whether an answer passes an item's check."""
    text = answer.strip()
    if "sentences" in check:
        found = [s for s in re.split(r"[.!?。！？](?:\s|$)|(?<=[。！？])", text) if s.strip()]
        return 0 < len(found) <= check["sentences"]
    if "lines" in check:
        return len(re.findall(rf"(?m)^\s*(?:{check['lines']})", text)) >= 2
    if "ends" in check:
        return re.search(f"{check['ends']}$", text) is not None
    if "has" in check:
        return any(re.search(pattern, text) for pattern in check["has"])
    return bool(text) and not any(re.search(pattern, text) for pattern in check["not"])


def auc(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the chance that one of ``above`` exceeds one of ``below``; ties count half."""
    wins = sum((a > b) + 0.5 * (a == b) for a in above for b in below)
    return wins / (len(above) * len(below))


def _log(item: dict[str, Any], number: int) -> Interaction:
    return Interaction(
        run_id=f"item-{number}",
        messages=_asked(item),
        answer=item["answer"],
        language=item["language"],
        feedback=[Feedback(run_id=f"item-{number}", comment=item["remark"])],
    )


def _asked(item: dict[str, Any]) -> list[Message]:
    return [Message(role="user", content=item["request"])]


def _rules(item: dict[str, Any]) -> list[str]:
    return [wish["rule"] for wish in item["wishes"]]


def _role_distil(engine: Engine, prompts: PromptSet, items: list[dict[str, Any]]) -> dict[str, Any]:
    sets = distil([_log(item, i) for i, item in enumerate(items)], engine, prompts, RECIPE)
    found, quiet, guessed, read = [], [], [], 0
    for item, rules in zip(items, sets, strict=True):
        texts = [rule.text for rule in rules.with_feedback]
        read += rules.outcome != "unparsable"
        for wish in item["wishes"]:
            found.append(any(re.search(wish["found_by"], t, re.IGNORECASE) for t in texts))
        if not item["wishes"]:
            quiet.append(rules.outcome == "empty")
        elif texts:
            guessed.append(bool(rules.without_feedback))
        print(item["language"], item["remark"], "->", rules.outcome, texts, sep=" | ")
    return {
        "distil: readable": [read, len(items)],
        "distil: wishes found": [sum(found), len(found)],
        "distil: noise kept out": [sum(quiet), len(quiet)],
        "predict: guessed something": [sum(guessed), len(guessed)],
    }


def _role_revise(engine: Engine, prompts: PromptSet, items: list[dict[str, Any]]) -> dict[str, Any]:
    def met(ask: Callable[[dict[str, Any]], list[Message]]) -> list[int]:
        sampling = Sampling(max_tokens=96)
        made = engine.generate([GenerateRequest(ask(one), sampling=sampling) for one in items])
        for one, answer in zip(items, made, strict=True):
            print(meets(one["check"], answer.text), one["remark"], repr(answer.text), sep=" | ")
        passed = [meets(i["check"], g.text) for i, g in zip(items, made, strict=True)]
        return [sum(passed), len(passed)]

    return {
        "revise by rules: met": met(
            lambda i: prompts.revise_rules_prompt(
                _asked(i), i["answer"], _rules(i), [i["remark"]], i["language"]
            )
        ),
        "revise by remarks: met": met(
            lambda i: prompts.revise_feedback_prompt(_asked(i), [i["remark"]], i["language"])
        ),
    }


def _role_judge(engine: Engine, prompts: PromptSet, items: list[dict[str, Any]]) -> dict[str, Any]:
    asked = [
        JudgeItem(_asked(item), _rules(item), answer, item["language"])
        for item in items
        for answer in (item["good"], item["answer"])
    ]
    scores = judge(asked, engine, prompts, RECIPE)
    both = list(zip(scores[::2], scores[1::2], strict=True))
    print(both)
    above = sum(g is not None and b is not None and g > b for g, b in both)
    equal = sum(g is not None and g == b for g, b in both)
    return {
        "judge: good above bad": [above, len(both)],
        "judge: equal": [equal, len(both)],
        "judge: readable": [sum(s is not None for s in scores), len(scores)],
    }


def _role_cover(engine: Engine, prompts: PromptSet, items: list[dict[str, Any]]) -> dict[str, Any]:
    wishes = [wish for item in items for wish in item["wishes"]]
    asked = [(w[kind], w["rule"]) for kind in ("same", "other") for w in wishes]
    yes = EngineReranker(engine, prompts).covered(asked).tolist()
    print([round(p, 2) for p in yes])
    return {"cover: AUC": round(auc(yes[: len(wishes)], yes[len(wishes) :]), 2)}


def _role_critique(
    engine: Engine, prompts: PromptSet, items: list[dict[str, Any]]
) -> dict[str, Any]:
    asked = [prompts.critique_prompt(_asked(i), i["answer"], i["language"]) for i in items]
    made = engine.generate([GenerateRequest(a, sampling=Sampling(max_tokens=64)) for a in asked])
    named = 0
    for item, text in zip(items, made, strict=True):
        try:
            said = " ".join(prompts.parse_critique(text.text))
        except RoleError:
            said = ""
        hit = any(re.search(w["found_by"], said, re.IGNORECASE) for w in item["wishes"])
        named += hit
        print(hit, item["remark"], said, sep=" | ")
    return {"critique: names the wish": [named, len(items)]}


def _real(engine: Engine, prompts: PromptSet, path: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: sum(len(m["content"]) for m in row["messages"][:3]))
    own = [[row for row in rows if row["lang"] == language] for language in ("en", "zh")]
    logs = [
        Interaction(
            run_id=row["id"],
            messages=[Message.model_validate(row["messages"][0])],
            answer=row["messages"][1]["content"],
            language=row["lang"],
            feedback=[Feedback(run_id=row["id"], comment=row["messages"][2]["content"])],
        )
        for row in [*own[0][:DIALOGS], *own[1][:DIALOGS]]
    ]
    sets = [distil([log], engine, prompts, RECIPE)[0] for log in logs]
    for log, rules in zip(logs, sets, strict=True):
        texts = [r.text for r in rules.with_feedback]
        print(log.language, log.feedback_turns[0][:80], rules.outcome, texts, sep=" | ")
    return {
        "distil, real dialogs: rules found": [sum(bool(s.with_feedback) for s in sets), len(sets)]
    }


def main(
    model: str,
    dialogs: Annotated[Path | None, typer.Option(help="Real dialogs, JSON lines.")] = None,
    only: Annotated[
        str, typer.Option(help="Roles, by comma.")
    ] = "distil,revise,judge,cover,critique",
    out: Annotated[Path | None, typer.Option(help="Where the figures go, as JSON.")] = None,
    dtype: str = "bfloat16",
) -> None:
    """Measure a model's roles and print them, each language apart."""
    engine, prompts = load_engine(model, dtype=dtype), load_prompt_set("real")
    figures: dict[str, Any] = {"model": Path(model).name, "prompts": prompts.fingerprint}
    for language in ("en", "zh"):
        own = [item for item in read_items() if item["language"] == language]
        some = [item for item in own if item["wishes"]][::2]
        for role in filter(None, only.split(",")):
            began, ask = time.process_time(), globals()[f"_role_{role}"]
            measured = ask(engine, prompts, own if role == "distil" else some)
            figures |= {f"{language} {name}": value for name, value in measured.items()}
            figures[f"{language} {role} seconds"] = round(time.process_time() - began)
            print(language, measured, figures[f"{language} {role} seconds"], "s", flush=True)
    if dialogs is not None:
        figures |= _real(engine, prompts, dialogs)
    print(json.dumps(figures, ensure_ascii=False, indent=1))
    if out is not None:
        out.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
