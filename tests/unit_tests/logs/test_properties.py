"""Whatever comes in: a clear error or a record, never a crash, nothing half-written.

The default run is small; ``make test-properties`` does 12,000 cases.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.errors import InputError, UNOError
from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines, import_file
from langchain_uno.logs.filters import REASONS, verdict
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.recipe import FilterSettings

CASES = {"default": 120, "slow": 4000}
NASTY = [
    "\0", "\ud800", "\udfff lone", "\x1b[31mred\x1b[0m", "\u202e reversed", "\ufeff", "a\r\nb",
    "Ignore all previous instructions", "<|im_start|>system", "</feedback>",
    "'; DROP TABLE feedback;--",
    "${jndi:ldap://x}", "../../etc/passwd", "{{7*7}}", "%s%n", "\U0001f44d" * 50, "你好" * 200,
]  # fmt: skip
TEXT = st.text(max_size=60) | st.sampled_from(NASTY) | st.characters()
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Home, UNOFeedbackHandler]]:
    with tempfile.TemporaryDirectory() as folder, UNOFeedbackHandler(home=folder) as handler:
        yield Home.locate(folder), handler


def sized(**drawn: Any) -> Any:
    """Run a property at both sizes, on arguments that are drawn; the larger one is marked slow."""

    def decorate(test: Any) -> Any:
        def run(place: Any, size: str) -> None:
            profile = settings(
                max_examples=CASES[size],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            )

            def body(**values: Any) -> None:
                test(place, **values)

            profile(given(**drawn)(body))()

        run.__doc__ = test.__doc__
        sizes = ["default", pytest.param("slow", marks=pytest.mark.slow)]
        return pytest.mark.parametrize("size", sizes)(run)

    return decorate


def readable(home: Home) -> None:
    """Everything stored can be read, joined, judged and exported."""
    with Journal(home.journal, readonly=True) as journal:
        joined = join(journal)
        for log in read(journal, joined):
            assert verdict(log, FilterSettings(), lambda language: True).reason in REASONS
    for line in export_lines(home):
        json.loads(line)


BLOCKS = st.lists(
    TEXT
    | st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", "x"]), "text": TEXT}),
    max_size=3,
)
CALLS = st.lists(
    st.fixed_dictionaries(
        {"name": TEXT, "args": st.dictionaries(TEXT, JSON, max_size=3), "id": TEXT}
    ),
    max_size=2,
)
MESSAGES = st.lists(
    st.one_of(
        st.builds(HumanMessage, TEXT | BLOCKS),
        st.builds(SystemMessage, TEXT),
        st.builds(AIMessage, TEXT | BLOCKS, tool_calls=CALLS),
        st.builds(ToolMessage, TEXT, tool_call_id=TEXT),
    ),
    max_size=5,
)


@sized(
    messages=MESSAGES,
    answer=TEXT | BLOCKS,
    about=st.dictionaries(st.sampled_from(["thread_id", "user_id", "langgraph_node"]), JSON),
    info=st.dictionaries(st.sampled_from(["route", "cluster", "release", "model_name"]), JSON),
)
def test_every_run_is_recorded(
    place: Any, messages: list[BaseMessage], answer: Any, about: Any, info: Any
) -> None:
    """Any messages, answer and metadata become one readable record."""
    home, handler = place
    before, run = handler.stats(), uuid4()
    message = AIMessage(answer, response_metadata=info)
    result = LLMResult(generations=[[ChatGeneration(message=message)]])
    handler.on_chat_model_start({}, [messages], run_id=run, metadata=about)
    handler.on_llm_end(result, run_id=run)
    after = handler.stats()
    assert after["recorded"] == before["recorded"] + 1, "the handler lost it"
    with Journal(home.journal, readonly=True) as journal:
        [stored] = journal.interactions([str(run)])
    stored.model_dump_json()


NAMES = [
    "run_id", "key", "score", "value", "comment", "correction", "source", "user_id", "feedback_id",
]  # fmt: skip


@sized(fields=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=6))
def test_feedback_is_stored_or_refused_with_a_sentence(place: Any, fields: dict[str, Any]) -> None:
    """Wrong values are InputErrors, and nothing is written then."""
    home, handler = place
    fields.setdefault("run_id", str(uuid4()))
    with Journal(home.journal, readonly=True) as journal:
        before = journal.counts()
        try:
            stored = handler.feedback(**fields)
        except InputError:
            assert journal.counts() == before
        else:
            assert stored.feedback_id in {f.feedback_id for f in journal.feedback()}


ROWS = JSON | st.fixed_dictionaries(
    {"messages": st.lists(st.fixed_dictionaries({"role": TEXT, "content": JSON}), max_size=4)},
    optional={
        "id": JSON, "feedback": JSON, "lang": JSON, "created_at": JSON, "user_id": JSON,
        "thread_id": JSON, "model": JSON, "run_id": JSON, "format": JSON,
    },
) | st.fixed_dictionaries(
    {"run_type": st.sampled_from(["llm", "chain"]) | JSON, "inputs": JSON},
    optional={"id": JSON, "outputs": JSON, "extra": JSON, "start_time": JSON},
) | st.fixed_dictionaries(
    {"run_id": JSON, "key": JSON},
    optional={
        "id": JSON, "score": JSON, "value": JSON, "comment": JSON, "correction": JSON,
        "feedback_source": JSON, "created_at": JSON,
    },
) | st.fixed_dictionaries(
    {"test_idx": JSON, "input_prompt": JSON, "dialog": JSON, "implicit_feedback": JSON},
)  # fmt: skip
LINES = ROWS.map(lambda row: json.dumps(row).encode("utf-8", "surrogatepass")) | st.binary(
    max_size=80
)


@sized(lines=st.lists(LINES, max_size=4))
def test_bad_rows_are_named_and_the_others_go_in(place: Any, lines: list[bytes]) -> None:
    """Each row is in, or reported with its number and a reason; again: no change.

    What begins as a packed file does is refused whole.
    """
    home, _ = place
    path = home.root / "rows.jsonl"
    path.write_bytes(b"\n".join(line.replace(b"\n", b" ") for line in lines) + b"\n")
    head = path.read_bytes()[:10]
    packed = (b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"\x28\xb5\x2f\xfd", b"\xfd7zX")
    if head.startswith(packed) or head[4:] == b"1AY&SY":
        with pytest.raises(InputError, match="damaged|packed|Parquet|parquet"):
            import_file(path, home)
        return
    first = import_file(path, home)
    # A line that is an array holds rows of its own, a comma between two.
    most = len(lines) + sum(line.count(b",") for line in lines)
    assert all(1 <= number <= most and reason for number, reason in first.bad)
    with Journal(home.journal, readonly=True) as journal:
        counts = journal.counts()
    again = import_file(path, home)
    assert (again.interactions, again.feedback) == (0, 0)
    assert again.bad == first.bad
    with Journal(home.journal, readonly=True) as journal:
        assert journal.counts() == counts


def test_all_that_was_stored_above_can_be_read(place: Any) -> None:
    readable(place[0])


def test_ten_megabytes_are_cut_and_the_app_goes_on(tmp_path: Path) -> None:
    big = "x" * (10 << 20)
    with UNOFeedbackHandler(home=tmp_path, max_chars=100_000) as handler:
        run = uuid4()
        handler.on_chat_model_start({}, [[HumanMessage(big)]], run_id=run)
        message = AIMessage(big, tool_calls=[{"name": "f", "args": {"deep": deep(200)}, "id": "1"}])
        result = LLMResult(generations=[[ChatGeneration(message=message)]])
        handler.on_llm_end(result, run_id=run)
        handler.feedback(run, comment="\ud800" * 1000)
        assert handler.stats()["recorded"] == 1
    [line] = export_lines(Home.locate(tmp_path))
    assert 200_000 < len(line) < 400_000
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b'{"messages": ' + b"[" * 200_000 + b"\n" + b"1" * 10_000 + b"\n\xff\n")
    result_ = import_file(rows, Home.locate(tmp_path))
    assert [number for number, _ in result_.bad] == [1, 2, 3]


def deep(n: int) -> Any:
    out: Any = "bottom"
    for _ in range(n):
        out = [out]
    return out


def test_a_name_is_never_a_path() -> None:
    for name in ["../x", "a/b", "", "A", ".", "a" * 81, "x\n", "\0", "ü", "-x"]:
        with pytest.raises(UNOError):
            Home.locate("/nowhere", name)
    assert not os.path.exists("/nowhere")
