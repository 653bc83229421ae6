from __future__ import annotations

import asyncio
import json
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_uno.errors import EngineError, InputError, ReleaseError
from langchain_uno.models.chat_format import render
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import Engine, GenerateRequest, Sampling
from langchain_uno.records import Message

NAMES = [None, "a0", "a1", "a2"]


def ask(text: str, adapter: str | None = None, **sampling: Any) -> GenerateRequest:
    settings = {"max_tokens": 16, **sampling}
    return GenerateRequest([Message(role="user", content=text)], adapter, Sampling(**settings))


def mixed(n: int, **sampling: Any) -> list[GenerateRequest]:
    return [ask(f"question {i} " * (1 + i % 5), NAMES[i % 4], **sampling) for i in range(n)]


class Reference:
    """What ``model.generate`` says, one prompt at a time, one adapter alone on a fresh model."""

    def __init__(self, model: Path, adapters: dict[str, Path]) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.models = {
            name: self._load(model, adapters.get(name) if name else None) for name in NAMES
        }

    def _load(self, model: Path, adapter: Path | None) -> Any:
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        return (PeftModel.from_pretrained(base, adapter) if adapter else base).eval()

    def __call__(self, request: GenerateRequest) -> list[int]:
        text = render(self.tokenizer, request.messages, (), {"enable_thinking": False})
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        out = self.models[request.adapter].generate(
            **ids, do_sample=False, max_new_tokens=request.sampling.max_tokens
        )
        tokens: list[int] = out[0, ids["input_ids"].shape[1] :].tolist()
        return tokens

    def text(self, request: GenerateRequest) -> str:
        return str(self.tokenizer.decode(self(request), skip_special_tokens=True))


@pytest.fixture(scope="module")
def reference(tiny_model_path: Path, adapter_paths: dict[str, Path]) -> Reference:
    return Reference(tiny_model_path, adapter_paths)


def test_it_is_an_engine(engine: LocalEngine, tiny_model_path: Path) -> None:
    assert isinstance(engine, Engine)
    assert engine.model_name == str(tiny_model_path)
    assert engine.adapters() == ["a0", "a1", "a2"]
    assert not engine.closed


def test_greedy_equals_model_generate_with_each_adapter_alone(
    engine: LocalEngine, reference: Reference
) -> None:
    requests = mixed(14)
    wanted = [reference.text(r) for r in requests]
    assert len({reference.text(ask("same", name)) for name in NAMES}) == 4, "adapters must differ"
    assert [g.text for g in engine.generate(requests)] == wanted
    one_by_one = [engine.generate([r])[0].text for r in requests[:4]]
    assert one_by_one == wanted[:4]


def test_threads_with_different_adapters_do_not_mix(
    engine: LocalEngine, reference: Reference
) -> None:
    requests = mixed(12)
    wanted = [reference.text(r) for r in requests]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda r: engine.generate([r])[0].text, requests * 2))
    assert got == wanted * 2


def test_rows_of_different_lengths_join_and_leave(
    tiny_model_path: Path, adapter_paths: dict[str, Path], reference: Reference
) -> None:
    engine = load_engine(str(tiny_model_path), max_batch=3, max_prompt_tokens=200)
    try:
        for name, path in adapter_paths.items():
            engine.load_adapter(name, path)
        requests = [
            ask("word " * (1 + 3 * (i % 4)), NAMES[i % 4], max_tokens=2 + (7 * i) % 15)
            for i in range(11)
        ]
        done: list[int] = []
        got = engine.generate(requests, on_done=done.append)
        assert [g.text for g in got] == [reference.text(r) for r in requests]
        assert sum(done) == len(requests)
    finally:
        engine.close()


@pytest.fixture(scope="module", params=["full", "sliding"])
def attending(request: pytest.FixtureRequest, tiny_model_path: Path, tmp_path_factory: Any) -> Path:
    """The tiny model; and one whose first layer sees 24 tokens back."""
    if request.param == "full":
        return tiny_model_path
    folder = Path(shutil.copytree(tiny_model_path, tmp_path_factory.mktemp("m") / "sliding"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
    config["layer_types"] = ["sliding_attention", "full_attention"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_what_prompts_begin_with_is_computed_once(
    attending: Path, adapter_paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "You write a list of short rules about what the user wants. " * 3
    texts = [head + "word " * n + "?" for n in (1, 30, 7, 1, 16)]
    engine = load_engine(str(attending), device="cpu")
    assert isinstance(engine, LocalEngine)
    engine.load_adapter("a0", adapter_paths["a0"])
    wanted = Reference(attending, adapter_paths)
    seen: list[int] = []
    forward = type(engine.model).forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["input_ids"].numel())
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(type(engine.model), "forward", counted)
    try:
        for adapter in (None, "a0"):
            requests = [ask(text, adapter, max_tokens=20) for text in texts]
            seen.clear()
            made = engine.generate(requests)
            padded = len(texts) * max(g.usage.input_tokens for g in made)
            assert [g.text for g in made] == [wanted.text(r) for r in requests]
            assert len(head) < seen[0] < len(head) + 20, "once, and then what differs"
            assert seen[1] == padded - len(texts) * seen[0]
        seen.clear()
        mixed_up = [ask(texts[0], None), ask(texts[1], "a0")]
        assert [g.text for g in engine.generate(mixed_up)] == [wanted.text(r) for r in mixed_up]
        assert seen[0] > 2 * len(head), "adapters differ: nothing is shared"
        prompts = [r.messages for r in requests]
        each = np.concatenate([engine.choose([p], ["yes", "no"]) for p in prompts])
        np.testing.assert_allclose(engine.choose(prompts, ["yes", "no"]), each, rtol=1e-4)
    finally:
        engine.close()


def test_usage_and_finish_reason(engine: LocalEngine) -> None:
    [answer] = engine.generate([ask("hello", max_tokens=5)])
    assert answer.finish_reason == "length"
    assert answer.usage.output_tokens == 5
    assert answer.usage.input_tokens > 5


def test_sampling_is_a_rows_own_affair(engine: LocalEngine) -> None:
    hot = [ask("tell me", None, temperature=1.5, top_p=0.95, seed=s) for s in (1, 2, 1)]
    first = engine.generate([*hot, *mixed(5)])
    assert first[0].text == first[2].text != first[1].text
    assert engine.generate([hot[0]])[0].text == first[0].text
    assert engine.generate([*mixed(7), hot[1]])[-1].text == first[1].text
    unseeded = {engine.generate([ask("tell me", temperature=1.5)])[0].text for _ in range(3)}
    assert len(unseeded) > 1


def test_a_tiny_nucleus_is_greedy(engine: LocalEngine) -> None:
    [narrow] = engine.generate([ask("tell me", "a0", temperature=1.0, top_p=1e-6, seed=3)])
    [greedy] = engine.generate([ask("tell me", "a0")])
    assert narrow.text == greedy.text


@pytest.mark.parametrize("name", NAMES)
def test_streamed_pieces_make_the_answer(engine: LocalEngine, name: str | None) -> None:
    request = ask("stream this", name, max_tokens=40, temperature=2.0, seed=5)
    chunks = list(engine.stream(request))
    [whole] = engine.generate([request])
    assert "".join(c.text for c in chunks) == whole.text
    assert chunks[-1].generation == whole
    assert all(c.generation is None for c in chunks[:-1])
    assert len(chunks) > 3


def test_stop_strings_end_one_row_only(engine: LocalEngine) -> None:
    request = ask("stop here", "a0", max_tokens=30, temperature=2.0, seed=11)
    [whole] = engine.generate([request])
    stop = whole.text[5:8]
    cut = ask("stop here", "a0", max_tokens=30, temperature=2.0, seed=11, stop=(stop,))
    got, other = engine.generate([cut, request])
    assert got.text == whole.text[: whole.text.index(stop)]
    assert got.finish_reason == "stop"
    assert other == whole
    streamed = list(engine.stream(cut))
    assert "".join(c.text for c in streamed) == got.text


def test_closing_a_stream_cancels_it(engine: LocalEngine) -> None:
    stream = engine.stream(ask("long one", max_tokens=3000))
    next(stream)
    stream.close()
    assert engine.generate([ask("next")])[0].text is not None
    _wait_until(lambda: not engine._scheduler._batch.live)


def test_ctrl_c_in_the_caller_leaves_the_engine_running(engine: LocalEngine) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate(
            [ask("short", max_tokens=1), ask("long", max_tokens=3000)],
            on_done=interrupt,
        )
    assert engine.generate([ask("next")])[0].usage.output_tokens > 0
    _wait_until(lambda: not engine._scheduler._batch.live)


async def test_async_answers_stream_and_cancel(engine: LocalEngine) -> None:
    requests = mixed(8)
    wanted = [g.text for g in engine.generate(requests)]
    got = await asyncio.gather(*(engine.agenerate(r) for r in requests))
    assert [g.text for g in got] == wanted
    pieces = [c async for c in engine.astream(requests[1])]
    assert "".join(c.text for c in pieces) == wanted[1]
    long = asyncio.create_task(engine.agenerate(ask("x", max_tokens=3000)))
    await asyncio.sleep(0.05)
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    assert (await engine.agenerate(requests[2])).text == wanted[2]


def test_choose_is_the_next_token_s_distribution(engine: LocalEngine, reference: Reference) -> None:
    prompts = [[Message(role="user", content="word " * n)] for n in (1, 9, 4)]
    got = engine.choose(prompts, ["yes", "no"])
    assert got.shape == (3, 2)
    for row, prompt in zip(got, prompts, strict=True):
        text = render(reference.tokenizer, prompt, (), {})
        ids = reference.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        logits = reference.models[None](**ids).logits[0, -1]
        firsts = [reference.tokenizer.encode(o, add_special_tokens=False)[0] for o in ("yes", "no")]
        np.testing.assert_allclose(row, torch.softmax(logits[firsts], -1).tolist(), rtol=1e-4)
    assert engine.choose([], ["yes", "no"]).shape == (0, 2)
    with pytest.raises(InputError, match="same token"):
        engine.choose(prompts, ["yes", "you"])


def test_a_prompt_that_fills_the_model_gets_an_empty_answer(engine: LocalEngine) -> None:
    [answer, other] = engine.generate([ask("x" * 5000), ask("short")])
    assert (answer.text, answer.finish_reason, answer.usage.output_tokens) == ("", "length", 0)
    assert other.usage.output_tokens > 0
    with pytest.raises(InputError, match="holds 4096"):
        engine.choose([[Message(role="user", content="x" * 5000)]], ["yes", "no"])


def test_max_tokens_is_cut_to_the_model_s_room(engine: LocalEngine) -> None:
    [answer] = engine.generate([ask("x" * 4060, max_tokens=100)])
    assert answer.usage.input_tokens + answer.usage.output_tokens <= 4096


def test_unknown_adapter_and_failing_model_are_told_to_the_caller(engine: LocalEngine) -> None:
    with pytest.raises(EngineError, match="no adapter 'nobody'"):
        engine.generate([ask("hi", "nobody")])


class _OnlyDigits:
    """A constraint as a grammar library would give one."""

    def __init__(self, allowed: list[int]) -> None:
        self.allowed = allowed
        self.accepted: list[int] = []

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        out = torch.full_like(logits, -torch.inf)
        out[self.allowed] = logits[self.allowed]
        return out

    def accept(self, token: int) -> None:
        self.accepted.append(token)


def test_the_constraint_hook_is_obeyed(tiny_model_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    digits = [tokenizer.encode(str(d), add_special_tokens=False)[0] for d in range(10)]
    made: list[_OnlyDigits] = []

    def constrainer(request: GenerateRequest) -> _OnlyDigits | None:
        if request.json_schema is None:
            return None
        assert request.json_schema == {"type": "integer"}
        made.append(_OnlyDigits(digits))
        return made[-1]

    engine = load_engine(str(tiny_model_path), constrainer=constrainer)
    try:
        message = [Message(role="user", content="a number")]
        request = GenerateRequest(
            message, sampling=Sampling(max_tokens=6), json_schema={"type": "integer"}
        )
        constrained, free = engine.generate([request, ask("a number", max_tokens=6)])
        assert constrained.text.isdigit()
        assert len(made[0].accepted) == 6
        assert not free.text.isdigit()
    finally:
        engine.close()


def test_a_failing_pass_fails_its_requests_only(tiny_model_path: Path) -> None:
    class Broken:
        def mask(self, logits: torch.Tensor) -> torch.Tensor:
            raise ValueError("planted")

        def accept(self, token: int) -> None: ...

    def constrainer(request: GenerateRequest) -> Broken | None:
        return Broken() if request.json_schema else None

    engine = load_engine(str(tiny_model_path), constrainer=constrainer)
    alone = engine.generate([ask("still there", max_tokens=60)])
    bad = GenerateRequest([Message(role="user", content="x")], json_schema={"a": 1})
    try:
        with ThreadPoolExecutor() as pool:
            beside = pool.submit(engine.generate, [ask("still there", max_tokens=60)])
            with pytest.raises(EngineError, match="planted"):
                engine.generate([bad, ask("in one call with it", max_tokens=60)])
            assert beside.result() == alone, "whoever shares the pass is not touched"
        assert engine.generate([ask("still there", max_tokens=60)]) == alone
    finally:
        engine.close()


# -- exclusive use ---------------------------------------------------------------------------------


@pytest.fixture
def own_engine(tiny_model_path: Path, adapter_paths: dict[str, Path]) -> Iterator[LocalEngine]:
    engine = load_engine(str(tiny_model_path))
    assert isinstance(engine, LocalEngine)
    engine.load_adapter("a0", adapter_paths["a0"])
    yield engine
    engine.close()


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}


def test_out_of_memory_is_answered_by_fewer_answers_at_a_time(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were under way go on from where they are: no answer differs, none is lost."""
    one = load_engine(str(tiny_model_path), device="cpu")
    assert isinstance(one, LocalEngine)
    requests = [ask(f"q{i}", max_tokens=12, temperature=1.0, seed=i) for i in range(9)]
    want = [one.generate([request])[0].text for request in requests]
    chances = one.choose([r.messages for r in requests], ["a", "b"])
    forward, refused = one.model.forward, 0

    def small(*args: Any, **kwargs: Any) -> Any:
        nonlocal refused
        rows, columns = kwargs["input_ids"].shape
        known = kwargs["past_key_values"].get_seq_length() if kwargs["past_key_values"] else 0
        if rows * (known + columns) > most:
            refused += 1
            raise torch.OutOfMemoryError("no memory left")
        return forward(*args, **kwargs)

    monkeypatch.setattr(one.model, "forward", small)
    length = len(one.prompt(requests[0].messages))
    most = 5 * (length + 6)  # nine prompts are too many at once, and four whole answers
    pieces: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        streamed = pool.submit(lambda: pieces.extend(c.text for c in one.stream(requests[0])))
        assert [got.text for got in one.generate(requests)] == want
        streamed.result()
    assert "".join(pieces) == want[0]
    assert refused >= 2, "at once, and again as answers grew"
    np.testing.assert_allclose(
        one.choose([r.messages for r in requests], ["a", "b"]), chances, atol=1e-5
    )
    most = length - 1
    with pytest.raises(EngineError, match="no memory left"):
        one.generate(requests[:1])
    one.close()


@pytest.mark.parametrize(("after_s", "again"), [(0.0, 8), (600.0, 4)])
def test_memory_that_comes_back_is_used(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch, after_s: float, again: int
) -> None:
    """Another process may have had it: a minute later more answers are made at a time."""
    monkeypatch.setattr("langchain_uno.models.scheduler.REGROW_S", after_s)
    one = load_engine(str(tiny_model_path), device="cpu")
    assert isinstance(one, LocalEngine)
    requests = [ask(f"q{i}", max_tokens=4) for i in range(8)]
    forward, rows, most = one.model.forward, [0], 4

    def small(*args: Any, **kwargs: Any) -> Any:
        if len(kwargs["input_ids"]) > most:
            raise torch.OutOfMemoryError("no memory left")
        rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(one.model, "forward", small)
    want = one.generate(requests)
    assert max(rows) == 4
    most = 8
    for _ in range(4):
        assert [got.text for got in one.generate(requests)] == [text.text for text in want]
    assert max(rows) == again
    one.close()


@pytest.mark.parametrize("room", [True, False])
def test_rows_that_left_are_dropped_layer_by_layer(
    tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """Out of memory meanwhile, too, is answered by fewer answers at a time."""
    one = load_engine(str(tiny_model_path), device="cpu")
    requests = [ask(f"q{i}", max_tokens=3 if i < 2 else 12) for i in range(8)]
    want = [one.generate([request])[0].text for request in requests]
    real = torch.Tensor.new_zeros
    before: list[weakref.ref[torch.Tensor]] = []
    there: list[int] = []

    def new_zeros(self: torch.Tensor, size: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        buffer = real(self, size, *args, **kwargs)
        if isinstance(size, tuple) and size[0] == 8:
            before.append(weakref.ref(buffer))
        elif isinstance(size, tuple) and size[0] == 6:
            there.append(sum(ref() is not None for ref in before))
            if not room and len(there) == 2:
                raise torch.OutOfMemoryError("no memory left")
        return buffer

    monkeypatch.setattr(torch.Tensor, "new_zeros", new_zeros)
    assert [got.text for got in one.generate(requests)] == want
    assert len(before) >= 4 and there
    if room:
        assert there[-1] == 2, "keys and values of the last layer"
    one.close()


def test_exclusive_hands_out_the_plain_base_and_restores_it(own_engine: LocalEngine) -> None:
    request = ask("before", "a0")
    before = own_engine.generate([request, ask("before")])
    with own_engine.exclusive() as (model, tokenizer):
        assert tokenizer is own_engine.tokenizer
        assert not any("lora_" in name for name, _ in model.named_modules())
        weights = _weights(model)
        with pytest.raises(EngineError, match=r"exclusive\(\) block"):
            own_engine.generate([ask("inside")])
        peft = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
        peft.train()
        model.gradient_checkpointing_enable()
        loss = peft(**tokenizer("hello", return_tensors="pt")).logits.sum()
        loss.backward()
        model.forward = lambda *a, **k: None  # what a trainer's wrapper leaves behind
        peft.unload()
    assert own_engine.generate([request, ask("before")]) == before
    assert "forward" not in model.__dict__
    after = _weights(own_engine.model)
    assert all(torch.equal(weights[n.replace(".base_layer", "")], p) for n, p in after.items()), (
        "base weights must stay bit-identical"
    )


def test_requests_wait_while_a_trainer_has_the_model(own_engine: LocalEngine) -> None:
    answers: list[str] = []
    with own_engine.exclusive():
        waiting = threading.Thread(
            target=lambda: answers.append(own_engine.generate([ask("wait", "a0")])[0].text)
        )
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert not answers
    waiting.join(30)
    assert answers == [own_engine.generate([ask("wait", "a0")])[0].text]


def test_lora_layers_left_in_the_base_are_taken_out(own_engine: LocalEngine) -> None:
    before = own_engine.generate([ask("left", "a0"), ask("left")])
    with own_engine.exclusive() as (model, _):
        get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    assert own_engine.generate([ask("left", "a0"), ask("left")]) == before


def test_an_adapter_that_cannot_be_read_again_costs_itself_alone(
    own_engine: LocalEngine, adapter_paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_engine.load_adapter("a1", adapter_paths["a1"])
    before = own_engine.generate([ask("left", "a1")])
    lost = adapter_paths["a0"] / "adapter_model.safetensors"
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == lost:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    with own_engine.exclusive():
        monkeypatch.setattr(Path, "read_bytes", refuse)
    assert own_engine.adapters() == ["a1"]
    assert own_engine.generate([ask("left", "a1")]) == before
    with pytest.raises(ReleaseError, match="Permission denied"):
        own_engine.load_adapter("lost", lost.parent)


def test_an_error_in_the_block_frees_the_engine(own_engine: LocalEngine) -> None:
    with pytest.raises(ZeroDivisionError), own_engine.exclusive():
        _ = 1 / 0
    assert own_engine.generate([ask("again", "a0")])[0].usage.output_tokens > 0


def test_a_closed_engine_says_so(tiny_model_path: Path) -> None:
    engine = load_engine(str(tiny_model_path))
    stream = engine.stream(ask("x", max_tokens=3000))
    next(stream)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        list(stream)
    with pytest.raises(EngineError, match="closed"):
        engine.generate([ask("x")])


def _wait_until(condition: Any, seconds: float = 20.0) -> None:
    import time

    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
