"""The bundled model's trainer, run briefly: it learns, resumes, and saves an ordinary model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest
from rich.console import Console

from lab.bundled import data
from lab.bundled.curriculum import Curriculum
from lab.bundled.disk import ship
from lab.bundled.train import BundledConfig, train
from langchain_uno.demo.drawing import make_query
from langchain_uno.demo.language import is_unseen_name, load_language

LANGUAGE = load_language()

CONFIG = BundledConfig(
    tokens=24 * 1024,
    batch_tokens=1024,
    warmup=2,
    own_errors=8,
    hidden=64,
    layers=2,
    heads=2,
    kv_heads=1,
    mlp=128,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(data, "CHUNK", 64)
    out = tmp_path_factory.mktemp("bundled")
    console = Console(file=(out / "log.txt").open("w"), width=200)
    train(CONFIG, out, max_steps=10, compiled=False, console=console)
    assert json.loads((out / "position.json").read_text())["step"] == 10
    train(CONFIG, out, compiled=False, console=console)
    console.file.close()
    patch.undo()
    return out


def test_it_resumes_and_finishes(trained: Path) -> None:
    position = json.loads((trained / "position.json").read_text())
    assert position["step"] == 24
    assert position["drawn"] >= 2, "own revisions are sampled on the way, and again"
    assert len(position["pool"]) == 16, "and the last two samples are kept"
    assert "going on from step 10 of 24" in (trained / "log.txt").read_text()


def test_the_loss_fell(trained: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    model = AutoModelForCausalLM.from_pretrained(trained / "model")
    curriculum = Curriculum(seed=99)
    rows = [data.encode(tokenizer, curriculum.draw("distil")) for _ in range(8)]
    with torch.no_grad():
        losses = [
            float(model(torch.tensor([ids]), labels=torch.tensor([ids])).loss) for ids, _ in rows
        ]
    assert sum(losses) / len(losses) < 7.0, "log(2048) = 7.6 is chance"


def test_the_shipped_folder_is_small_and_ordinary(trained: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target = ship(trained / "model", tmp_path / "shipped")
    model = AutoModelForCausalLM.from_pretrained(target)
    assert model.config.model_type == "qwen3"
    assert not list(target.glob("*.bin")) and not list(target.glob("*.pt"))
    tokenizer = AutoTokenizer.from_pretrained(target)
    text = tokenizer.apply_chat_template(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert text.count("<|im_start|>") == 3 and '"name": "f"' in text


def test_only_the_models_own_turn_weighs_fully(trained: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    example = Curriculum(seed=1).draw("revise")
    ids, weights = data.encode(tokenizer, example)
    own = tokenizer.decode([i for i, w in zip(ids, weights, strict=True) if w == 1.0])
    assert own == example.messages[-1].content + "<|im_end|>"


@pytest.mark.parametrize("role", ["judge", "compare"])
def test_a_judgements_decisions_weigh_more_than_its_quotations(trained: Path, role: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    example = Curriculum(seed=1).draw(role)
    ids, weights = data.encode(tokenizer, example)
    heavy = tokenizer.decode(
        [i for i, w in zip(ids, weights, strict=True) if w == data.VERDICT_WEIGHT]
    )
    said = example.messages[-1].content
    decisions = re.findall(r"-> (yes|no)$", said, re.MULTILINE)
    assert decisions
    assert heavy.split()[: len(decisions)] == decisions
    assert len(heavy) < len(said) / 2


def test_comparisons_are_true_and_of_both_kinds() -> None:
    curriculum = Curriculum(seed=4)
    seen = set()
    for _ in range(50):
        for line in curriculum.draw("compare").messages[-1].content.splitlines():
            pair, verdict = line.rsplit(" -> ", 1)
            fact, version = pair.split(" | ")
            assert (fact == version) == (verdict == "yes")
            seen.add(verdict)
    assert seen == {"yes", "no"}


def test_training_never_shows_held_out_names() -> None:
    curriculum, rng = Curriculum(seed=3), Random(0)
    assert all(not is_unseen_name(curriculum.query().entity) for _ in range(300))
    family = LANGUAGE.families["bug"]
    for _ in range(100):
        query = make_query(LANGUAGE, family, rng, unseen=True)
        assert is_unseen_name(query.entity)
        assert all(fact in query.text for fact in query.facts)


def test_training_never_shows_held_out_frames_or_wordings() -> None:
    curriculum = Curriculum(seed=4)
    text = "\n".join(m.content for _ in range(2000) for m in curriculum.draw().messages)
    for family in LANGUAGE.families.values():
        for frame in family.unseen_frames:
            pattern = re.sub(r"\\\{\w+\\\}", "[^.]{1,200}?", re.escape(frame))
            assert not re.search(pattern, text), frame
        seen = [re.sub(r"\\\{\w+\\\}", "[^.]{1,200}?", re.escape(f)) for f in family.frames]
        assert any(re.search(p, text) for p in seen), "the pattern finds what is there"
    text = text.lower()
    for rule in LANGUAGE.rules.values():
        hidden = [w for w in rule.unseen_wordings if not any(w in s for s in rule.wordings)]
        for wording in hidden:
            assert f" {wording}." not in text
