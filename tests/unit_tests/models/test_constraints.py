"""Answers in a form: a random model says nonsense, so only the grammar can make it parse."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from pydantic import BaseModel
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from langchain_uno.errors import EngineError, InputError
from langchain_uno.models.chat_format import parse_tool_calls
from langchain_uno.models.constraints import grammar_constrainer
from langchain_uno.models.loading import load_engine
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Generation, Sampling
from langchain_uno.models.sampling import Picker, pick_tokens
from langchain_uno.records import Message


class _Part(BaseModel):
    name: str
    weight: float | None = None
    tags: list[str] = []


class _Whole(BaseModel):
    title: str
    urgent: bool
    parts: list[_Part]


SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
    "nested, with references": _Whole.model_json_schema(),
    "enums": {"enum": ["yes", "no", "vielleicht", "也许"]},
    "array of numbers": {"type": "array", "items": {"type": "number"}, "minItems": 2},
    "either": {"anyOf": [{"type": "integer"}, {"type": "null"}, {"type": "string"}]},
    "recursive": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["value", "next"],
            }
        },
        "$ref": "#/$defs/node",
    },
    "any object": {"type": "object"},
    "a map": {"type": "object", "additionalProperties": {"type": "integer"}},
    "long bounds": {"type": "string", "minLength": 3, "maxLength": 9},
    "quotes in a name": {
        "type": "object",
        "properties": {'the "x"\n': {"type": "boolean"}},
        "required": ['the "x"\n'],
    },
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": None}}


@pytest.fixture(scope="module", params=["marks are tokens", "marks are text"])
def caller(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Engines whose tokenizer has tokens for the marks of a tool call, and spells them."""
    from langchain_uno.testing import make_tiny_model

    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "m")
    if request.param == "marks are text":
        _forget_marks(folder)
    engine = load_engine(str(folder))
    yield engine
    engine.close()


def _forget_marks(folder: Path) -> None:
    """Rename the two tokens of tool calls: the model has to spell the marks then."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = folder / name
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace("tool_call>", "no_call>"), encoding="utf-8")
    template = folder / "chat_template.jinja"
    if template.is_file():  # the template itself goes on to say tool_call
        text = template.read_text(encoding="utf-8")
        template.write_text(text.replace("no_call>", "tool_call>"), encoding="utf-8")


def ask(
    engine: LocalEngine, rows: int = 4, room: int = 300, warm: float = 1.5, **asked: Any
) -> list[Generation]:
    messages = [Message(role="user", content="Say something.")]
    return engine.generate(
        [
            GenerateRequest(messages, sampling=Sampling(warm, 1.0, room, seed), **asked)
            for seed in range(rows)
        ]
    )


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("room", [100, 200])
def test_every_answer_is_json_of_the_schema(engine: LocalEngine, name: str, room: int) -> None:
    schema = SCHEMAS[name]
    for answer in ask(engine, room=room, json_schema=schema):
        jsonschema.validate(json.loads(answer.text), schema)
        assert answer.usage.output_tokens <= room


def test_greedy_answers_parse_too(engine: LocalEngine) -> None:
    [answer] = ask(engine, 1, 200, 0.0, json_schema=SCHEMAS["flat"])
    jsonschema.validate(json.loads(answer.text), SCHEMAS["flat"])


@pytest.mark.parametrize("choice", ["required", "weather"])
def test_a_required_call_is_one_and_fits_its_tool(caller: LocalEngine, choice: str) -> None:
    for answer in ask(caller, tools=(WEATHER, CLOCK), tool_choice=choice):
        assert answer.text == ""
        assert answer.finish_reason == "tool_calls"
        if choice == "weather":
            assert len(answer.tool_calls) == 1
        for call in answer.tool_calls:
            assert call["name"] in ({"weather"} if choice == "weather" else {"weather", "clock"})
            if call["name"] == "weather":
                jsonschema.validate(call["args"], WEATHER["function"]["parameters"])  # type: ignore[index]
            else:
                assert call["args"] == {}


def test_free_text_may_hold_calls_and_those_are_whole(caller: LocalEngine) -> None:
    answers = ask(caller, 24, 200, tools=(WEATHER,))
    assert any(answer.text for answer in answers), "nobody has to call"
    for answer in answers:
        for call in answer.tool_calls:
            jsonschema.validate(call["args"], WEATHER["function"]["parameters"])  # type: ignore[index]


def test_tools_and_a_schema_give_one_or_the_other(caller: LocalEngine) -> None:
    for answer in ask(caller, 12, tools=(WEATHER,), json_schema=SCHEMAS["flat"]):
        if not answer.tool_calls:
            jsonschema.validate(json.loads(answer.text), SCHEMAS["flat"])


def test_constrained_and_free_rows_share_a_batch(engine: LocalEngine) -> None:
    messages = [Message(role="user", content="Say something.")]
    free = GenerateRequest(messages, sampling=Sampling(max_tokens=40))
    bound = GenerateRequest(messages, sampling=Sampling(max_tokens=80), json_schema=SCHEMAS["flat"])
    alone = [engine.generate([r])[0] for r in (free, bound)]
    mixed = engine.generate([free, bound, free, bound])
    assert [a.text for a in mixed] == [alone[0].text, alone[1].text] * 2


@pytest.mark.parametrize(
    "schema",
    [{"type": "nonsense"}, {"$ref": "#/$defs/nowhere"}, {"type": "object", "properties": 3}],
)
def test_a_schema_that_is_none_is_refused_with_the_reason(
    engine: LocalEngine, schema: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="form"):
        ask(engine, json_schema=schema)
    assert ask(engine, 1, 5), "and the engine lives"


def test_streamed_json_is_the_same_json(engine: LocalEngine) -> None:
    request = GenerateRequest(
        [Message(role="user", content="Say something.")],
        sampling=Sampling(1.5, 1.0, 200, 3),
        json_schema=SCHEMAS["nested, with references"],
    )
    chunks = list(engine.stream(request))
    [whole] = engine.generate([request])
    assert "".join(c.text for c in chunks) == whole.text
    _Whole.model_validate_json(whole.text)


def _byte_level(pattern: str | None, lines: list[str]) -> Tokenizer:
    """As GPT-2's (no pattern), Qwen's and Llama 3's: a letter may join the tab before it."""
    core = Tokenizer(models.BPE())
    split: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is not None:
        before = pre_tokenizers.Split(Regex(pattern), "isolated")
        split = pre_tokenizers.Sequence([before, split])
    core.pre_tokenizer = split
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    )
    return core


def _byte_fallback(prefix: bool, lines: list[str]) -> Tokenizer:
    """As Gemma's, and with the prefix Llama 2's: spaces are ``▁``, rare characters are bytes."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    space = normalizers.Replace(" ", "▁")
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space]) if prefix else space
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    named = ["<unk>", *(f"<0x{i:02X}>" for i in range(256))]
    common = [line.replace("你好", "").replace("😀", "") for line in lines]
    core.train_from_iterator(
        common, trainers.BpeTrainer(vocab_size=480, special_tokens=named, show_progress=False)
    )
    stored = json.loads(core.to_str())
    stored["added_tokens"] = stored["added_tokens"][:1]  # bytes are no special tokens
    return Tokenizer.from_str(json.dumps(stored))


QWEN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
VOCABULARIES: dict[str, Callable[[list[str]], Tokenizer]] = {
    "GPT-2": partial(_byte_level, None),
    "Qwen": partial(_byte_level, QWEN),
    "Llama 3": partial(_byte_level, LLAMA3),
    "Gemma": partial(_byte_fallback, False),
    "Llama 2": partial(_byte_fallback, True),
}


@cache
def vocabulary(name: str) -> Any:
    """A tokenizer trained on a little of everything."""
    from transformers import PreTrainedTokenizerFast

    words = ["keep", "the", "answer", "short", "e", "z", "naïve", "你好", "😀", "123 4567"]
    codes = ['{"a": 12, "b": ["x"]}', "[[1, 2], 3.5e7]", '"}] "]}\n', '"]}]}', "\t\t}"]
    lines = [f"\t{a} {b}\n\t\t.{b}" for a in words + codes for b in words + codes]
    ends = {"eos_token": "<|im_end|>"}
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=VOCABULARIES[name](lines), **ends)
    tokenizer.add_tokens(["\n\n\n", "<start_of_turn>"])
    return tokenizer


@pytest.fixture(scope="module")
def byte_level() -> Any:
    """A tokenizer trained as Qwen's are."""
    return vocabulary("Qwen")


SHORTEST: dict[str, tuple[dict[str, Any], str]] = {
    "strings": ({"type": "array", "items": {"type": "string"}}, "[]"),
    "rules": ({"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
              '["x"]'),
    "numbers": (SCHEMAS["array of numbers"], "[0, 0]"),
    "an integer in bounds": ({"type": "integer", "minimum": 17, "maximum": 1234}, "17"),
    "nested arrays": ({"type": "array", "minItems": 2, "items": {
        "type": "array", "minItems": 1, "items": {"type": "array", "items": {"type": "number"}}}},
        "[[[]], [[]]]"),
    "an enum": (SCHEMAS["enums"], '"no"'),
    "either": (SCHEMAS["either"], '""'),
    "a judgement": ({"type": "object", "required": ["reason", "score"], "properties": {
        "reason": {"type": "string"}, "score": {"enum": [1, 2, 10]}}},
        '{"reason": "", "score": 1}'),
    "a pattern": ({"type": "string", "pattern": "^[a-z]+@[a-z]+[.]com$"}, '"x@x.com"'),
    "any object": (SCHEMAS["any object"], "{}"),
    "recursive": (SCHEMAS["recursive"], '{"value": "", "next": null}'),
    "with references": (SCHEMAS["nested, with references"],
                        '{"title": "", "urgent": true, "parts": []}'),
}  # fmt: skip
"""Schemas, and for each one of its shortest values."""


@pytest.mark.parametrize("limits", [48, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", VOCABULARIES)
def test_json_is_whole_at_every_limit_with_every_vocabulary(name: str, limits: int) -> None:
    """Each schema with several limits, of models that talk on about one thing, or anything."""
    tokenizer, dice = vocabulary(name), random.Random(7)
    end = tokenizer.eos_token_id
    constrain = grammar_constrainer(tokenizer, frozenset([end]))
    for trial in range(limits):
        schema, shortest = SHORTEST[list(SHORTEST)[trial % len(SHORTEST)]]
        least = len(tokenizer.encode(shortest, add_special_tokens=False)) + 2
        sampling = Sampling(trial % 2, 1.0, dice.randint(least, least + 90), trial)
        answer = constrain(GenerateRequest([], sampling=sampling, json_schema=schema))
        picker, said = Picker(sampling, answer), list[int]()
        noise = torch.Generator().manual_seed(trial)
        taste = 4 * torch.randn(len(tokenizer), generator=noise)
        taste[end] = -9
        while said[-1:] != [end]:
            assert len(said) < sampling.max_tokens, (shortest, tokenizer.decode(said))
            said += pick_tokens(taste + torch.randn(1, len(tokenizer), generator=noise), [picker])
            assert picker.error is None
        jsonschema.validate(json.loads(tokenizer.decode(said, skip_special_tokens=True)), schema)


def test_a_tool_call_begins_only_where_it_can_end(tiny_model_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    end, call = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<tool_call>")
    constrain = grammar_constrainer(tokenizer, frozenset([end]))
    seen = []
    for trial in range(20):
        sampling = Sampling(1.0, 1.0, 60 + 3 * trial, trial)
        picker = Picker(
            sampling, constrain(GenerateRequest([], sampling=sampling, tools=[WEATHER]))
        )
        said: list[int] = []
        while said[-1:] != [end] and len(said) < sampling.max_tokens:
            logits = torch.zeros(1, len(tokenizer))
            logits[0, call] = 2.0  # often enough to be begun near the end
            said += pick_tokens(logits, [picker])
        text, calls = parse_tool_calls(tokenizer.decode(said, skip_special_tokens=True))
        assert picker.error is None and "<tool_call>" not in text
        seen.append(len(calls))
    assert max(seen) and not min(seen)


def test_a_tokenizer_whose_bytes_are_not_known_is_told() -> None:
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1}, unk_token="[UNK]"))
    core.decoder = decoders.WordPiece()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="[SEP]")
    with pytest.raises(EngineError, match="WordPiece"):
        grammar_constrainer(tokenizer, frozenset([1]))(GenerateRequest([], json_schema={}))


# Models that repeat a digit for ever: dottxt-ai/outlines #847, vllm-project/vllm #8350,
# google-gemini/cookbook #1288.
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"type": "integer", "minimum": 3},
        {"type": "integer", "exclusiveMaximum": 100_000},
        {"type": ["integer", "null"]},
        {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"],
         "$defs": {"n": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}},
    ],
)  # fmt: skip
def test_a_whole_number_ends_by_itself(byte_level: Any, schema: dict[str, Any]) -> None:
    constrain = grammar_constrainer(byte_level, frozenset([byte_level.eos_token_id]))
    answer = constrain(GenerateRequest([], sampling=Sampling(max_tokens=900), json_schema=schema))
    assert answer is not None
    digits = [i for i, t in enumerate(byte_level.convert_ids_to_tokens(range(300))) if t.isdigit()]
    said: list[int] = []
    while said[-1:] != [byte_level.eos_token_id]:
        logits = torch.zeros(len(byte_level))
        logits[digits] += 9
        said.append(int(answer.mask(logits).argmax()))
        answer.accept(said[-1])
        assert len(said) < 60
    told = json.loads(byte_level.decode(said, skip_special_tokens=True))
    jsonschema.validate(told, schema)


@pytest.mark.parametrize("number", [0, -7, 1_420_070_400_000_000_000, -(9 * 10**18)])
def test_ids_of_64_bits_fit(byte_level: Any, number: int) -> None:
    constrain = grammar_constrainer(byte_level, frozenset([byte_level.eos_token_id]))
    answer = constrain(GenerateRequest([], json_schema={"type": "integer"}))
    assert answer is not None
    for token in byte_level.encode(str(number)):
        answer.accept(token)
