"""The bundled model's trainer, run briefly: it learns, resumes, and saves an ordinary model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from lab.bundled.disk import ship
from lab.bundled.train import EmbeddedConfig, train
from langchain_uno.trainers import embedded_data as embedded

CONFIG = EmbeddedConfig(
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
    patch.setattr(embedded, "CHUNK", 64)
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

    from lab.bundled.curriculum import Curriculum

    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    model = AutoModelForCausalLM.from_pretrained(trained / "model")
    curriculum = Curriculum(seed=99)
    rows = [embedded.encode(tokenizer, curriculum.draw("distil")) for _ in range(8)]
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

    from lab.bundled.curriculum import Curriculum

    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    example = Curriculum(seed=1).draw("revise")
    ids, weights = embedded.encode(tokenizer, example)
    own = tokenizer.decode([i for i, w in zip(ids, weights, strict=True) if w == 1.0])
    assert own == example.messages[-1].content + "<|im_end|>"


@pytest.mark.parametrize("role", ["judge", "compare"])
def test_a_judgements_decisions_weigh_more_than_its_quotations(trained: Path, role: str) -> None:
    from transformers import AutoTokenizer

    from lab.bundled.curriculum import Curriculum

    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    example = Curriculum(seed=1).draw(role)
    ids, weights = embedded.encode(tokenizer, example)
    heavy = tokenizer.decode(
        [i for i, w in zip(ids, weights, strict=True) if w == embedded.VERDICT_WEIGHT]
    )
    said = example.messages[-1].content
    decisions = re.findall(r"-> (yes|no)$", said, re.MULTILINE)
    assert decisions
    assert heavy.split()[: len(decisions)] == decisions
    assert len(heavy) < len(said) / 2


def test_comparisons_are_true_and_of_both_kinds() -> None:
    from lab.bundled.curriculum import Curriculum

    curriculum = Curriculum(seed=4)
    seen = set()
    for _ in range(50):
        for line in curriculum.draw("compare").messages[-1].content.splitlines():
            pair, verdict = line.rsplit(" -> ", 1)
            fact, version = pair.split(" | ")
            assert (fact == version) == (verdict == "yes")
            seen.add(verdict)
    assert seen == {"yes", "no"}
