"""The expert trainer: TRL's and PEFT's real classes on a tiny random model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from langchain_uno.errors import InputError
from langchain_uno.records import Message, PreferencePair, RatedAnswer
from langchain_uno.trainers import common, expert
from langchain_uno.trainers.common import TrainSettings
from langchain_uno.trainers.expert import train_expert

SETTINGS = TrainSettings(
    rank=8,
    dropout=0.0,
    learning_rate=3e-3,
    epochs=2,
    batch_size=4,
    max_length=200,
)


def pair(i: int, swap: bool = False) -> PreferencePair:
    chosen, rejected = f"- no. {i}\n- ok", f"well, it is no. {i}"
    return PreferencePair(
        run_id=str(i),
        messages=[Message(role="user", content=f"Which number, {i}?")],
        chosen=rejected if swap else chosen,
        rejected=chosen if swap else rejected,
    )


def thumbs(ups: int, downs: int, swap: bool = False) -> list[RatedAnswer]:
    """Lone thumbs on different requests: no answer that is liked has a disliked partner."""
    out = []
    for i in range(ups + downs):
        one, liked = pair(i), i < ups
        answer = one.chosen if liked != (swap and i % 2 == 1) else one.rejected
        out.append(RatedAnswer(run_id=str(i), messages=one.messages, answer=answer, liked=liked))
    return out


def margin(model: Any, tokenizer: Any, pairs: list[PreferencePair]) -> float:
    """Mean log-probability of chosen over rejected answers, per pair."""
    end = common.turn_end(tokenizer)
    total = 0.0
    for one in pairs:
        prompt = common.prompt_ids(tokenizer, one.messages)
        for answer, sign in ((one.chosen, 1.0), (one.rejected, -1.0)):
            completion = common.completion_ids(tokenizer, answer, end)
            ids = torch.tensor([prompt + completion])
            with torch.no_grad():
                logs = model(ids).logits[0, :-1].log_softmax(-1)
            picked = logs.gather(1, ids[0, 1:, None])[-len(completion) :, 0]
            total += sign * float(picked.sum())
    return total / len(pairs)


def test_three_trainings_leave_the_base_bit_identical(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = torch.tensor([common.prompt_ids(tokenizer, pair(0).messages)])
    with torch.no_grad():
        logits = model(ids).logits
    random_state = torch.get_rng_state()
    for n in range(3):
        # The second as a large model, and without room for its activations.
        monkeypatch.setattr(common, "BIG", 1 if n == 1 else 10**8)
        monkeypatch.setattr(common, "ROOM", 0 if n == 1 else 2**31)
        short = SETTINGS.model_copy(update={"max_steps": 2, "dropout": 0.05})
        train_expert(model, tokenizer, [pair(i) for i in range(4)], tmp_path / str(n), short, n)
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with torch.no_grad():
        assert torch.equal(model(ids).logits, logits)
    assert "forward" not in model.__dict__
    assert not hasattr(model, "peft_config")
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_step_without_numbers_is_left_out(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU in bfloat16 one such step made all weights NaN, which ended the whole refresh."""
    steps: list[int] = []
    before = common.Watcher.on_pre_optimizer_step

    def spoil(self: Any, args: Any, state: Any, control: Any, **with_: Any) -> None:
        steps.append(state.global_step)
        if len(steps) == 2:
            next(p for p in with_["model"].parameters() if p.grad is not None).grad[0, 0] = math.nan
        before(self, args, state, control, **with_)

    monkeypatch.setattr(common.Watcher, "on_pre_optimizer_step", spoil)
    settings = SETTINGS.model_copy(update={"batch_size": 2, "epochs": 4})
    *_, last = train_expert(*tiny, [pair(i) for i in range(4)], tmp_path, settings, 0)
    tensors = load_file(last / "adapter_model.safetensors")
    assert len(steps) == 8 and all(bool(value.isfinite().all()) for value in tensors.values())
    assert any(bool(value.any()) for name, value in tensors.items() if "lora_B" in name)


@pytest.mark.parametrize("rate", [1e36, math.inf])
def test_a_training_without_numbers_fails_by_itself(
    tiny: tuple[Any, Any], tmp_path: Path, rate: float
) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": rate})
    with pytest.raises(InputError, match=r"no numbers: lower expert\.learning_rate"):
        train_expert(*tiny, [pair(i) for i in range(4)], tmp_path, settings, 0)
    assert not list(tmp_path.glob("epoch-*"))


def test_a_weakened_expert_is_the_same_with_a_smaller_alpha(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    model, tokenizer = tiny
    tensors, alphas = [], []
    for strength in (1.0, 0.75):
        settings = SETTINGS.model_copy(update={"strength": strength})
        out = tmp_path / str(strength)
        for epoch in train_expert(model, tokenizer, [pair(i) for i in range(4)], out, settings, 1):
            tensors.append(load_file(epoch / "adapter_model.safetensors"))
            alphas.append(json.loads((epoch / "adapter_config.json").read_text())["lora_alpha"])
    assert alphas == [16, 16, 12, 12]
    for whole, weak in zip(tensors[:2], tensors[2:], strict=True):
        assert all(torch.equal(weak[name], value) for name, value in whole.items())


def test_every_epoch_is_a_plain_peft_adapter(
    tiny: tuple[Any, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from peft import PeftModel

    model, tokenizer = tiny
    stale = tmp_path / "epoch-9"
    stale.mkdir()
    steps: list[tuple[int, int]] = []
    epochs = train_expert(
        model,
        tokenizer,
        [pair(i) for i in range(6)],
        tmp_path,
        SETTINGS.model_copy(update={"min_steps": 5}),
        seed=1,
        on_step=lambda done, total: steps.append((done, total)),
        base_name="my/base",
    )
    assert epochs == [tmp_path / f"epoch-{n}" for n in (1, 2, 3)]  # 2 steps an epoch, 5 asked for
    assert steps == [(n, 6) for n in range(1, 7)]
    assert capfd.readouterr() == ("", "")
    found = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"adapter_config.json", "adapter_model.safetensors"}
    assert not stale.exists()
    config = json.loads((epochs[0] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "my/base"
    assert config["target_modules"] == [
        "down_proj",
        "gate_proj",
        "k_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    ]
    with common.borrowed(model, tokenizer):
        ids = torch.tensor([common.prompt_ids(tokenizer, pair(0).messages)])
        with torch.no_grad():
            plain = model(ids).logits
            tuned = PeftModel.from_pretrained(model, str(epochs[-1])).eval()(ids).logits
    assert not torch.allclose(plain, tuned)


@pytest.mark.parametrize("preferences", ["true", "shuffled"])
def test_it_learns_the_preference_and_only_a_real_one(
    tiny: tuple[Any, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    preferences: str,
) -> None:
    from peft import PeftModel

    model, tokenizer = tiny
    held_out = [pair(i) for i in range(100, 106)]
    pairs = [pair(i, swap=preferences == "shuffled" and i % 2 == 1) for i in range(12)]
    base = margin(model, tokenizer, held_out)
    # Imitation has no other side to cancel it: preference alone.
    monkeypatch.setattr(expert, "LOSS_WEIGHTS", (1.0, 0.0))
    settings = SETTINGS.model_copy(update={"epochs": 8})
    epochs = train_expert(model, tokenizer, pairs, tmp_path, settings, seed=0)
    with common.borrowed(model, tokenizer):
        tuned = PeftModel.from_pretrained(model, str(epochs[-1])).eval()
        gain = margin(tuned, tokenizer, held_out) - base
    if preferences == "true":
        assert gain > 20.0
    else:
        assert abs(gain) < 10.0


def test_an_interrupt_leaves_whole_epochs_and_a_clean_base(
    tiny: tuple[Any, Any], tmp_path: Path
) -> None:
    model, tokenizer = tiny
    names = [name for name, _ in model.named_modules()]

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_expert(model, tokenizer, [pair(i) for i in range(4)], tmp_path, SETTINGS, 0, stop)
    assert [p.name for p in tmp_path.iterdir()] == ["epoch-1"]
    assert (tmp_path / "epoch-1" / "adapter_model.safetensors").is_file()
    assert [name for name, _ in model.named_modules()] == names


def test_too_little_memory_is_an_error_of_this_training_alone(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer examples at a time are tried first, then activations that are computed twice."""
    made: list[Any] = []
    monkeypatch.setattr(
        expert, "DPOConfig", lambda real=expert.DPOConfig, **kw: made.append(real(**kw)) or made[-1]
    )
    model, tokenizer = tiny
    names = [name for name, _ in model.named_modules()]

    def full(done: int, total: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InputError, match="lower expert.max_length"):
        train_expert(model, tokenizer, [pair(i) for i in range(4)], tmp_path, SETTINGS, 0, full)
    assert [name for name, _ in model.named_modules()] == names
    tried = [(one.per_device_train_batch_size, one.activation_checkpointing) for one in made]
    assert tried == [(4, False), (2, False), (1, False), (1, True)]
    assert {one.per_device_train_batch_size * one.gradient_accumulation_steps for one in made} == {
        4
    }


def test_the_base_is_asked_once_an_example_without_its_hash(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter is switched off once, however many batches there are."""
    from peft import PeftModel
    from trl.trainer import dpo_trainer, kto_trainer

    for module in (dpo_trainer, kto_trainer):
        monkeypatch.setattr(module, "hash_module", lambda _: pytest.fail("hashes all weights"))
    off: list[int] = []
    plain = PeftModel.disable_adapter
    monkeypatch.setattr(PeftModel, "disable_adapter", lambda self: off.append(1) or plain(self))
    monkeypatch.setattr(common, "BIG", 1)
    short = SETTINGS.model_copy(update={"max_steps": 2})
    examples: Any
    for examples in ([pair(i) for i in range(5)], thumbs(3, 3)):
        off.clear()
        train_expert(*tiny, examples, tmp_path, short, 0)
        assert len(off) == 1


def test_the_same_seed_gives_the_same_adapter(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = tiny
    short = SETTINGS.model_copy(update={"max_steps": 2})
    weights = [
        (
            train_expert(model, tokenizer, [pair(i) for i in range(6)], tmp_path / name, short, n)[
                -1
            ]
            / "adapter_model.safetensors"
        ).read_bytes()
        for name, n in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_without_room_for_activations_it_learns_the_same(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        expert, "DPOConfig", lambda real=expert.DPOConfig, **kw: made.append(real(**kw)) or made[-1]
    )
    short = SETTINGS.model_copy(update={"max_steps": 3, "dropout": 0.1})
    found = []
    for room in (2**31, 0):
        monkeypatch.setattr(common, "ROOM", room)
        epochs = train_expert(*tiny, [pair(i) for i in range(6)], tmp_path / str(room), short, 0)
        found.append((epochs[-1] / "adapter_model.safetensors").read_bytes())
    assert [config.activation_checkpointing for config in made] == [False, True]
    assert found[0] == found[1]


def test_pairs_too_long_are_left_out(
    tiny: tuple[Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, tokenizer = tiny
    long = pair(0).model_copy(update={"chosen": "x" * 300})
    with pytest.raises(InputError, match="no pair to train an expert on"):
        train_expert(model, tokenizer, [long], tmp_path, SETTINGS, 0)
    assert "1 of 1 pairs are longer than 200 tokens" in caplog.text
    weightless = pair(0).model_copy(update={"weight": 0.0})
    with pytest.raises(InputError, match="weights above 0"):
        train_expert(model, tokenizer, [weightless], tmp_path, SETTINGS, 0)


# -- Thumbs ----------------------------------------------------------------------------------------


def likelihood(tiny: tuple[Any, Any], adapter: Path, rated: list[RatedAnswer]) -> float:
    """Mean log-probability of rated answers under an adapter."""
    from peft import PeftModel

    model, tokenizer = tiny
    blank = [
        PreferencePair(
            **one.model_dump(include={"run_id", "messages"}), chosen=one.answer, rejected=""
        )
        for one in rated
    ]
    with common.borrowed(model, tokenizer):
        tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
        return margin(tuned, tokenizer, blank)


@pytest.mark.parametrize(
    ("examples", "least", "most"),
    [
        (thumbs(6, 6), 5.0, 1e9),
        (thumbs(14, 3), 5.0, 1e9),  # few thumbs down weigh as much as many up
        (thumbs(6, 6, swap=True), -3.0, 3.0),  # ratings that say nothing teach nothing
    ],
    ids=["even", "uneven", "shuffled"],
)
def test_it_learns_from_thumbs_alone(
    tiny: tuple[Any, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    examples: list[RatedAnswer],
    least: float,
    most: float,
) -> None:
    from peft import PeftModel

    # Imitation has no other side to cancel it: thumbs alone.
    monkeypatch.setattr(expert, "LOSS_WEIGHTS", (1.0, 0.0))
    model, tokenizer = tiny
    held_out = [pair(i) for i in range(100, 106)]
    base = margin(model, tokenizer, held_out)
    settings = SETTINGS.model_copy(update={"epochs": 8})
    epochs = train_expert(model, tokenizer, examples, tmp_path, settings, seed=0)
    assert capfd.readouterr() == ("", "")
    assert [e.name for e in epochs] == [f"epoch-{n}" for n in range(1, 9)]
    with common.borrowed(model, tokenizer):
        tuned = PeftModel.from_pretrained(model, str(epochs[-1])).eval()
        gain = margin(tuned, tokenizer, held_out) - base
    assert least < gain < most


def test_what_was_liked_is_imitated_besides(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Liked answers become likelier by it; where nobody liked anything in a batch it is silent."""
    made = []
    for weights in ((1.0, 0.0), (1.0, 1.0)):
        monkeypatch.setattr(expert, "LOSS_WEIGHTS", weights)
        [*_, last] = train_expert(*tiny, thumbs(3, 9), tmp_path / str(weights[1]), SETTINGS, 0)
        made.append(likelihood(tiny, last, thumbs(3, 0)))
    assert made[1] > made[0] + 1.0


def test_both_directions_weigh_the_same_on_the_whole(
    tiny: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        expert, "KTOConfig", lambda real=expert.KTOConfig, **kw: made.append(real(**kw)) or made[-1]
    )
    # The second as a large model, of which one pair at a time would be trained.
    for big in (10**8, 1):
        monkeypatch.setattr(common, "BIG", big)
        short = SETTINGS.model_copy(update={"max_steps": 1})
        train_expert(*tiny, thumbs(9, 3), tmp_path / str(big), short, 0)
    for config in made:
        ups, downs = 9 * config.desirable_weight, 3 * config.undesirable_weight
        assert ups == pytest.approx(downs) and ups + downs == pytest.approx(12)
    together = [(c.per_device_train_batch_size, c.gradient_accumulation_steps) for c in made]
    assert together == [(4, 1), (2, 2)]


def test_thumbs_that_all_say_the_same_teach_nothing(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    for ups, downs in ((4, 0), (0, 4)):
        with pytest.raises(InputError, match=f"{ups} thumbs up and {downs} down"):
            train_expert(*tiny, thumbs(ups, downs), tmp_path, SETTINGS, 0)
    with pytest.raises(InputError, match="no thumb to train an expert on"):
        train_expert(
            *tiny, [thumbs(1, 0)[0].model_copy(update={"weight": 0.0})], tmp_path, SETTINGS, 0
        )
