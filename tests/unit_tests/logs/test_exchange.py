"""Import, export and stats: the forms of rows, round trips, and bad rows."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toys import START, log

from langchain_uno.errors import HomeError, InputError
from langchain_uno.home import Home
from langchain_uno.logs.exchange import ImportResult, export_lines, import_file
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.rows import parse_row
from langchain_uno.logs.stats import stats
from langchain_uno.records import Feedback


def turns(*texts: str, system: str | None = None) -> list[dict[str, str]]:
    """Alternating user and assistant messages."""
    first = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return first + [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def bring(home: Home, folder: Path, *rows: Any) -> ImportResult:
    """Write the rows (texts as they are) to a file and import it."""
    path = folder / "rows.jsonl"
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return import_file(path, home)


def exported(home: Home) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export_lines(home)]


def test_a_dialog_becomes_one_interaction_an_answer(home: Home, tmp_path: Path) -> None:
    row = {
        "id": "d1",
        "dataset": "demo",
        "lang": "en",
        "user_id": "u",
        "thread_id": "t",
        "messages": turns(
            "Write.", "Draft.", "In bullets.", "- Draft.", "Thanks!", system="Be kind."
        ),
    }
    result = bring(home, tmp_path, row)
    assert (result.rows, result.interactions, result.feedback, result.bad) == (1, 2, 2, [])
    one, two = exported(home)
    assert one["messages"] == turns("Write.", "Draft.", system="Be kind.")
    assert two["messages"] == turns(
        "Write.", "Draft.", "In bullets.", "- Draft.", system="Be kind."
    )
    assert [(f["key"], f["comment"], f["user_id"]) for f in one["feedback"]] == [
        ("follow_up", "In bullets.", "u")
    ]
    assert [f["comment"] for f in two["feedback"]] == ["Thanks!"]
    assert one["tags"] == {"id": "d1", "dataset": "demo"} and one["thread_id"] == "t"
    assert one["created_at"] < two["created_at"]


def test_importing_twice_changes_nothing(home: Home, tmp_path: Path) -> None:
    rows = [
        {
            "messages": turns("Write.", "Draft.", "In bullets."),
            "feedback": [{"score": 0}, "too long"],
        },
        {"id": 7, "messages": turns("写一封信", "好的。", "短一点", "信。")},
    ]
    first = bring(home, tmp_path, *rows)
    before = exported(home)
    again = bring(home, tmp_path, *rows)
    assert (first.interactions, first.feedback) == (3, 4)
    assert (again.interactions, again.feedback, again.known) == (0, 0, 3)
    assert exported(home) == before
    assert [one["language"] for one in before] == ["en", "zh", "zh"]


def test_a_dialog_that_grew_adds_only_its_new_turns(home: Home, tmp_path: Path) -> None:
    bring(home, tmp_path, {"id": 1, "messages": turns("Write.", "Draft.", "In bullets.")})
    bring(
        home, tmp_path, {"id": 1, "messages": turns("Write.", "Draft.", "In bullets.", "- Draft.")}
    )
    assert [[f["comment"] for f in one["feedback"]] for one in exported(home)] == [
        ["In bullets."],
        [],
    ]


def test_branches_of_one_beginning_keep_their_own_follow_ups(home: Home, tmp_path: Path) -> None:
    bring(
        home,
        tmp_path,
        {"id": 1, "messages": turns("Write.", "Draft.", "In bullets.", "- Draft.")},
        {"id": 2, "messages": turns("Write.", "Draft.", "In verse.", "Draft, laughed.")},
    )
    assert [[f["comment"] for f in one["feedback"]] for one in exported(home)] == [
        ["In bullets."],
        [],
        ["In verse."],
        [],
    ]


def test_our_export_comes_back_without_any_loss(home: Home, tmp_path: Path) -> None:
    call = {"name": "search", "args": {"q": "x"}, "id": "c1"}
    full = log(
        1,
        "你好 \U0001f44d\x00",
        user_id="u",
        thread_id="t",
        root_run_id="root",
        model="m",
        tool_calls=[call],
        usage={"input_tokens": 1, "output_tokens": 2},
        latency_s=0.5,
        release="r",
        cluster="c",
        route="critic",
        adapter="a",
        tags={"k": "v"},
        language="zh",
    )
    failed = log(2, error="TimeoutError").model_copy(update={"answer": ""})
    with Journal(home.ensure().journal) as journal:
        journal.append_interaction(full)
        journal.append_interaction(failed)
        journal.append_interaction(log(3, "No, shorter.", thread_id="t", root_run_id="r3"))
        journal.append_feedback(
            Feedback(run_id=f"lc_run--{full.run_id}-0", score=0.0, value="x", correction="Better.")
        )
    before = exported(home)
    assert [f["key"] for f in before[0]["feedback"]] == ["follow_up", "comment"]
    other = Home.locate(tmp_path / "other")
    bring(other, tmp_path, *before)
    assert exported(other) == before
    assert stats(other)["feedback_kinds"] == stats(home)["feedback_kinds"]


def test_feedback_of_every_form(home: Home, tmp_path: Path) -> None:
    row = {
        "run_id": "lc_run--0198c0de-1111-7222-8333-444455556666-0",
        "messages": turns("Write.", "Draft.", "In bullets.", "- Draft."),
        "feedback": [
            "words",
            0.5,
            True,
            {"key": "like", "turn": 0},
            {"correction": "Better.", "user_id": "v", "created_at": "2026-01-05T10:00:00Z"},
            {"run_id": "0198c0de-1111-7222-8333-444455556666", "comment": "by id"},
        ],
    }
    assert bring(home, tmp_path, row).bad == []
    one, two = exported(home)
    assert two["run_id"] == "0198c0de-1111-7222-8333-444455556666"
    assert [f["key"] for f in one["feedback"]] == ["follow_up", "like"]
    assert {f.get("comment") or f.get("score") or f.get("correction") for f in two["feedback"]} == {
        "words", 0.5, 1.0, "Better.", "by id",
    }  # fmt: skip


def test_openai_tool_calls(home: Home, tmp_path: Path) -> None:
    function = {"name": "search", "arguments": '{"q": "x"}'}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Find x"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": function}]},
        {"role": "tool", "content": "found", "tool_call_id": "c"},
        {"role": "assistant", "content": "Found x."},
    ]
    assert bring(home, tmp_path, {"messages": messages}).bad == []
    one, two = exported(home)
    assert one["tool_calls"] == [{"name": "search", "args": {"q": "x"}, "id": "c"}]
    assert one["messages"][0]["content"] == "Find x[image_url]"
    assert two["answer"] == "Found x." and not one["feedback"]


@pytest.mark.parametrize("encode", [lambda x: x, json.dumps, repr])
@pytest.mark.parametrize("singular", [True, False])
@pytest.mark.parametrize("first_round", [0, 1])
def test_memorybench_rows(
    home: Home, tmp_path: Path, encode: Any, singular: bool, first_round: int
) -> None:
    def action(n: int, name: str) -> dict[str, Any]:
        said = {"implicit_action": name} if singular else {"implicit_actions": [name]}
        return {"round": first_round + n, **said, "terminated": False, "satisfaction_score": 4}

    row = {
        "test_idx": 3,
        "input_prompt": "Write.",
        "dataset_name": "WritingPrompts",
        "lang": "en",
        "info": encode({"golden": "secret reference"}),
        "dialog": encode(turns("Write.", "Draft.", "In bullets.", "- Draft.")),
        "implicit_feedback": encode([action(0, "dislike"), action(1, "like")]),
    }
    assert bring(home, tmp_path, row).bad == []
    one, two = exported(home)
    assert [(f["key"], f.get("score")) for f in one["feedback"]] == [
        ("follow_up", None), ("dislike", 0.0), ("satisfaction", None),
    ]  # fmt: skip
    assert [f["key"] for f in two["feedback"]] == ["like", "satisfaction"]
    assert one["tags"]["dataset"] == "WritingPrompts" and one["tags"]["test_idx"] == "3"
    assert "secret reference" not in json.dumps([one, two])


BAD: list[tuple[Any, str]] = [
    ("{not json", "not JSON"),
    ("[1, 2]", "must be a JSON object"),
    ('"text"', "must be a JSON object"),
    ('{"messages": NaN}', "at least one message"),
    ({}, "no 'messages'"),
    ({"messages": []}, "at least one message"),
    ({"messages": "{"}, "neither JSON nor a Python literal"),
    ({"messages": ["hello"]}, "must be an object"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "role 'robot'"),
    ({"messages": [{"role": "user", "content": {"a": 1}}]}, "content of type dict"),
    ({"messages": turns("only a question")}, "no assistant turn"),
    ({"messages": [{"role": "assistant", "content": "hello"}]}, "no user turn"),
    ({"messages": turns("a", "b"), "feedback": [{"score": 5}]}, "from 0 (bad) to 1"),
    ({"messages": turns("a", "b"), "feedback": [{"turn": 3, "score": 1}]}, "turn 3"),
    ({"messages": turns("a", "b"), "feedback": [{"source": "x"}]}, "says nothing"),
    ({"format": "langchain-uno.interaction", "schema_version": 99}, "newer release"),
    (
        {"format": "langchain-uno.interaction", "schema_version": 1, "messages": turns("a", "b")},
        "answer",
    ),
    (
        {"messages": turns("a", "b", "c", "d"), "created_at": "9999-12-31T23:59:59.999999"},
        "out of range",
    ),
    ({"messages": turns("a", "b"), "feedback": [10**400]}, "out of range"),
    ("9" * 5000, "not JSON"),
    ("[" * 100_000, "nested too deeply"),
]


def test_bad_rows_are_named_and_the_rest_goes_in(home: Home, tmp_path: Path) -> None:
    good = {"messages": turns("Write.", "Draft.")}
    rows: list[Any] = [good]
    for bad, _ in BAD:
        rows += [bad, ""]
    result = bring(home, tmp_path, *rows, {**good, "id": 2})
    assert [number for number, _ in result.bad] == [2 + 2 * n for n in range(len(BAD))]
    for (_, expected), (_, reason) in zip(BAD, result.bad, strict=True):
        assert expected in reason
    assert result.interactions == 2 and len(exported(home)) == 2


def test_bytes_that_are_not_utf8_and_a_mark_in_front(home: Home, tmp_path: Path) -> None:
    good = json.dumps({"messages": turns("Write.", "Draft.")}).encode()
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\xff\xfe{}\n")
    result = import_file(tmp_path / "f", home)
    assert result.interactions == 1 and result.bad == [(2, "not UTF-8 (byte 0)")]


def test_lone_surrogates_and_control_characters_go_in(home: Home, tmp_path: Path) -> None:
    row = (
        '{"messages": [{"role": "user", "content": "a\\ud800b\\u0000"},'
        ' {"role": "assistant", "content": "\\udfff"}], "feedback": [{"comment": "\\ud83d"}]}'
    )
    result = bring(home, tmp_path, row)
    assert result.bad == [] and result.interactions == 1
    assert exported(home)[0]["messages"][0]["content"] == "a\ufffdb\x00"


def test_random_rows_never_crash(home: Home) -> None:
    rng = random.Random(0)
    pieces: list[Any] = [
        None, True, -1, 2.5, "", "x", "[1]", [], {}, [{}], ["x"], {"role": "user"},
        turns("a", "b"), turns("a", "b", "c"), [{"role": "assistant", "content": None}],
        [{"role": "user", "content": ["x", {"type": "text", "text": 3}]}, *turns("a", "b")[1:]],
        [{"round": "x", "implicit_action": 3}], "9" * 400, 1e300, -(10**20), "\x00",
    ]  # fmt: skip
    keys = [
        "messages",
        "feedback",
        "dialog",
        "implicit_feedback",
        "id",
        "lang",
        "user_id",
        "thread_id",
        "created_at",
    ]
    keys += ["run_id", "format", "schema_version", "model", "test_idx", "tool_calls"]
    ok = 0
    for _ in range(5000):
        row = {key: rng.choice(pieces) for key in rng.sample(keys, rng.randint(0, 8))}
        if rng.random() < 0.6:
            row["messages"] = turns("a", "b", "c", "d")
        try:
            ok += bool(parse_row(row, START, "default"))
        except InputError:
            continue
    assert ok > 300
    assert not home.path.exists()


def test_personal_data_is_taken_out_on_the_way_in(home: Home, tmp_path: Path) -> None:
    row: Mapping[str, Any] = {
        "messages": turns("Write to a@b.org", "Dear a@b.org", "use 10.0.0.1"),
        "feedback": [{"comment": "card 4111 1111 1111 1111"}],
    }
    assert bring(home, tmp_path, row).redacted == {"email": 2, "ip": 1, "credit_card": 1}
    assert stats(home)["redacted"] == {"email": 2, "ip": 1, "credit_card": 1}
    text = "".join(export_lines(home))
    assert "a@b.org" not in text and "4111" not in text


def test_stats_count_what_there_is(home: Home, tmp_path: Path) -> None:
    rows = [
        {"messages": turns("Write.", "Draft.", "In bullets.", "- Draft.")},
        {"messages": turns("写信", "信。", "谢谢")},
        {"messages": turns("Write!", "Draft!"), "feedback": [{"score": 1}]},
        {"messages": turns("Écris", "x"), "lang": "fr", "feedback": ["court"]},
    ]
    bring(home, tmp_path, *rows)
    found = stats(home)
    assert found["interactions"] == 5 and found["usable"] == 3 and found["pending"] == 5
    assert found["verdicts"] == {
        "ok": 3,
        "no_feedback": 1,
        "unsupported_language": 1,
    }
    assert found["languages"] == {"en": 3, "fr": 1, "zh": 1}
    assert found["feedback_kinds"] == {"follow_up": 2, "comment": 1, "score": 1}
    assert len(list(export_lines(home, usable_only=True))) == 3


@pytest.mark.parametrize(
    ("named", "said", "language"),
    [
        ("Simplified Chinese", "请写一封关于渡轮的信。", "zh"),
        ("German", "Schreibe bitte einen kurzen Brief über die Fähre.", "de"),
        ("zh-Hans", "OK", "zh"),
        ("Chinese", "OK", "zh"),
        ("zho_Hans", "OK", "zh"),
        ("cmn-Hans", "OK", "zh"),
        ("chi", "OK", "zh"),
        ("eng_Latn", "OK", "en"),
        ("und", "请写一封关于渡轮的信。", "zh"),
        ("mul", "Please write a short letter about the ferry.", "en"),
    ],
)
def test_a_code_names_the_language_else_what_is_said(
    home: Home, tmp_path: Path, named: str, said: str, language: str
) -> None:
    bring(home, tmp_path, {"messages": turns(said, said), "language": named, "feedback": ["ok"]})
    assert stats(home)["languages"] == {language: 1}


def test_missing_home_and_file(home: Home, tmp_path: Path) -> None:
    with pytest.raises(HomeError, match="no home"):
        stats(home)
    with pytest.raises(InputError, match="can't be read"):
        import_file(tmp_path / "none.jsonl", home)
    with pytest.raises(InputError, match="can't be read"):
        import_file(tmp_path, home)
    assert not home.path.exists()


@pytest.mark.parametrize(
    "messages",
    [
        [
            {"role": "USER", "parts": [{"type": "text", "text": "Which quay?"}]},
            {"role": "ASSISTANT", "parts": [{"type": "reasoning", "text": "hm"}, {"text": "Six."}]},
        ],
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Which quay?"}]},
            {"role": "model", "content": [{"type": "output_text", "text": "Six."}]},
        ],
        [{"from": "human", "value": "Which quay?"}, {"from": "gpt", "value": "Six."}],
        [
            {"type": "human", "data": {"content": "Which quay?"}},
            {
                "lc": 1,
                "type": "constructor",
                "id": ["langchain", "schema", "AIMessageChunk"],
                "kwargs": {"content": "Six."},
            },
        ],
    ],
)
def test_every_shape_of_messages_is_read(
    home: Home, tmp_path: Path, messages: list[dict[str, Any]]
) -> None:
    later = [{"role": "user", "content": "Give the time too"}]
    name = "conversations" if "from" in messages[0] else "messages"
    assert bring(home, tmp_path, {name: [*messages, *later], "created_at": 1712275200000}).bad == []
    [line] = export_lines(home)
    row = json.loads(line)
    assert [m["content"] for m in row["messages"]] == ["Which quay?", "Six."]
    assert [f["comment"] for f in row["feedback"]] == ["Give the time too"]
    assert row["created_at"].startswith("2024-04-05")


def test_a_message_without_words_is_a_bad_row(home: Home, tmp_path: Path) -> None:
    result = bring(home, tmp_path, {"messages": [{"role": "user"}, {"role": "user", "text": "x"}]})
    assert [reason for _, reason in result.bad] == [
        "message 0 has neither content, parts nor tool calls"
    ]
