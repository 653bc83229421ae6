"""A model whose template takes user and assistant in turn, as Gemma's, through every part."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_uno import UNOChatModel
from langchain_uno.errors import TemplateError
from langchain_uno.learning.distil import distil
from langchain_uno.logs.stats import stats
from langchain_uno.models.chat_format import render
from langchain_uno.models.judge import JudgeItem, judge
from langchain_uno.models.loading import load_engine, load_prompt_set
from langchain_uno.models.local import LocalEngine
from langchain_uno.models.protocols import GenerateRequest, Sampling
from langchain_uno.records import Message, PreferencePair
from langchain_uno.reflect import reflect, run_together
from langchain_uno.trainers import common
from langchain_uno.trainers.expert import train_expert
from tests.unit_tests.graphs.refresh_parts import RECIPE, folder_of, logs, make_home, refresh
from tests.unit_tests.learning.toy_language import log

GEMMA = """
{%- for m in messages -%}
{%- if m['role'] not in ('user', 'assistant') -%}
{{ raise_exception('System role not supported') }}{%- endif -%}
{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{%- endif -%}
{%- if loop.last and m['role'] != 'user' -%}
{{ raise_exception('The last turn must be the user\\'s') }}{%- endif -%}
{{ '<|im_start|>' ~ m['role'] ~ '\\n' ~ m['content'] ~ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


PARTS = """
{%- for m in messages -%}
{{ '<|im_start|>' ~ m['role'] ~ '\\n' }}
{%- for part in m['content'] -%}{%- if part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
"""As vision models have it: content is a list of parts."""


@pytest.fixture(scope="module")
def strict(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strict") / "gemma"
    shutil.copytree(tiny_model_path, folder)
    (folder / "chat_template.jinja").write_text(GEMMA, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def engine(strict: Path) -> Iterator[LocalEngine]:
    made = load_engine(str(strict), device="cpu")
    assert isinstance(made, LocalEngine)
    yield made
    made.close()


def test_a_template_that_reads_parts_gets_parts(engine: LocalEngine) -> None:
    tokenizer = copy.copy(engine.tokenizer)
    tokenizer.chat_template = PARTS
    said = turns("system:be brief", "user:hi", "assistant:", "user:go on")
    assert render(tokenizer, said) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\ngo on<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_template_that_leaves_the_words_out_is_refused(engine: LocalEngine) -> None:
    tokenizer = copy.copy(engine.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['text'] }}{% endfor %}"
    with pytest.raises(TemplateError, match="leaves out what a user says"):
        render(tokenizer, turns("user:hi"))
    tokenizer.chat_template = engine.tokenizer.chat_template
    assert render(tokenizer, turns("user:hi")) == render(engine.tokenizer, turns("user:hi"))


def test_a_tool_that_a_template_cannot_print_spoils_nothing_after_it(engine: LocalEngine) -> None:
    tokenizer = copy.copy(engine.tokenizer)
    names = "{% for t in tools or [] %}{{ t.function.parameters.properties.items() }}{% endfor %}"
    tokenizer.chat_template = names + engine.tokenizer.chat_template
    bare = {"name": "f", "description": "", "parameters": {"type": "object"}}
    with pytest.raises(TemplateError, match="refused the messages"):
        render(tokenizer, turns("user:hi"), [{"type": "function", "function": bare}])
    assert render(tokenizer, turns("user:hi")) == render(engine.tokenizer, turns("user:hi"))


def turns(*said: str) -> list[Message]:
    pairs = [one.split(":") for one in said]
    return [Message.model_validate({"role": role, "content": text}) for role, text in pairs]


def test_it_serves(strict: Path, tmp_path: Path) -> None:
    chat = UNOChatModel(model=str(strict), home=tmp_path / "home", max_tokens=4)
    call = {"name": "f", "args": {}, "id": "1"}
    for messages in (
        [SystemMessage("s"), HumanMessage("u"), HumanMessage("v")],
        [AIMessage("Hello!"), HumanMessage("u")],
        [HumanMessage("u"), AIMessage("", tool_calls=[call]), ToolMessage("t", tool_call_id="1")],
    ):
        assert chat.invoke(messages).usage_metadata["output_tokens"] > 0
        assert list(chat.stream(messages))


def test_it_plays_every_role(engine: LocalEngine) -> None:
    prompts = load_prompt_set("real")
    one = log("1", "How?", "So.", "shorter")
    assert distil([one], engine, prompts, RECIPE)[0].outcome in ("rules", "empty", "unparsable")
    assert judge([JudgeItem(one.messages, ["Be brief."], "So.")], engine, prompts, RECIPE)
    request = GenerateRequest(one.messages, sampling=Sampling(max_tokens=4))
    plan = reflect(request, prompts, suggestions=["Be brief."], draft="So.")
    [made] = run_together([plan], engine)
    assert made.suggestions == ("Be brief.",)
    chosen = engine.choose([prompts.cover_prompt("a", "b")], prompts.cover_options)
    assert chosen.sum() == pytest.approx(1.0)


def test_it_is_trained_on_the_prompts_that_it_is_served(
    engine: LocalEngine, tmp_path: Path
) -> None:
    asked = turns("system:s", "user:u", "user:v")
    ids = common.prompt_ids(engine.tokenizer, asked)
    assert ids == engine.prompt(asked)
    assert "user\ns\n\nu\n\nv<" in engine.tokenizer.decode(ids)
    pair = PreferencePair(run_id="1", messages=asked, chosen="a", rejected="b", origin="edited")
    settings = common.TrainSettings.of(RECIPE, "expert", 1)
    with engine.exclusive() as (model, tokenizer):
        [epoch] = train_expert(model, tokenizer, [pair], tmp_path, settings, 0)
    assert (epoch / "adapter_model.safetensors").is_file()


def test_a_log_that_it_refuses_is_left_out_with_its_reason(
    engine: LocalEngine, tmp_path: Path
) -> None:
    odd = log("odd", "plan a trip to place 99", "answer", "please sing", user_id="user-1")
    odd = odd.model_copy(update={"messages": [*odd.messages, *turns("assistant:I began.")]})
    home = make_home(tmp_path, [*logs(12), odd])
    result: Any = refresh(home, engine, until="distil")
    assert result.usable == 12
    assert folder_of(home, result).read_json("dropped.json") == {"refused_by_template": 1}
    assert stats(home)["verdicts"]["refused_by_template"] == 1
