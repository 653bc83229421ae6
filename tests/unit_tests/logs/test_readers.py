"""Every format that an import reads, by a sample in its real shape, and the way round of all.

The shapes are documented or published by: ShareGPT (LLaMA-Factory, Axolotl dataset docs),
lmsys/lmsys-chat-1m and allenai/WildChat-1M (cards), OpenAssistant (oasst1 card, data schemas),
ChatGPT's data export (conversations.json), OpenAI's preference fine-tuning guide, TRL (dataset
formats), Anthropic/hh-rlhf, lmsys/chatbot_arena_conversations and lmarena's 55k competition,
openbmb/UltraFeedback and its binarized card, Open WebUI (models/feedbacks.py, issues 1835, 6420),
LibreChat (issue 1660, message schema), Langfuse (blob storage export fields), LangSmith (feedback
data format, langsmith-sdk 1753), LiteLLM (logging spec), ms-swift (custom dataset), OpenAI's
Assistants and Responses, Gemini (generateContent), AI SDK (UIMessage), Anthropic (messages),
Alpaca, Helicone and Portkey (log exports), MemoryBench.
"""

from __future__ import annotations

import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from toys import START

from langchain_uno.errors import InputError
from langchain_uno.home import Home
from langchain_uno.logs.containers import read_rows
from langchain_uno.logs.exchange import ImportResult, export_lines, import_file
from langchain_uno.logs.readers import READERS
from langchain_uno.logs.rows import group_of, parse_group, parse_row
from langchain_uno.logs.stats import stats

EXPORTS = Path(__file__).parents[2] / "data" / "exports"

# file: (format, new records, pieces of feedback stored, passed over)
FILES: dict[str, tuple[set[str], int, int, dict[str, int]]] = {
    "ai_sdk.jsonl": ({"chat"}, 2, 1, {}),
    "alpaca.jsonl": ({"alpaca"}, 2, 1, {}),
    "anthropic.jsonl": ({"chat", "requests"}, 3, 1, {}),
    "assistants.jsonl": ({"messages"}, 1, 1, {}),
    "chat.jsonl": ({"chat"}, 3, 3, {}),
    "chatgpt.json": ({"chatgpt"}, 2, 1, {}),
    "chatgpt_feedback.json": ({"chatgpt"}, 0, 1, {}),
    "gemini.jsonl": ({"chat", "requests"}, 2, 1, {}),
    "kto.jsonl": ({"kto"}, 2, 2, {}),
    "langfuse.jsonl": ({"langfuse"}, 2, 2, {"not_a_model_run": 1, "score_of_a_session": 1}),
    "langsmith.jsonl": ({"langsmith"}, 1, 3, {"not_a_model_run": 1}),
    "langsmith_examples.jsonl": ({"langsmith"}, 2, 0, {}),
    "librechat.json": ({"librechat"}, 2, 4, {}),
    "librechat_flat.jsonl": ({"librechat"}, 2, 2, {}),
    "litellm.jsonl": ({"litellm"}, 2, 1, {"failed_request": 1}),
    "lmarena.jsonl": ({"lmarena"}, 1, 1, {"tie": 1}),
    "lmarena_55k.csv": ({"lmarena"}, 1, 1, {"tie": 1}),
    "lmsys.jsonl": ({"wildchat"}, 1, 0, {"toxic": 1}),
    "memorybench.jsonl": ({"memorybench"}, 2, 5, {}),
    "messages.tsv": ({"messages"}, 2, 1, {}),
    "ms_swift.jsonl": ({"ms-swift"}, 4, 3, {}),
    "oasst_flat.jsonl": ({"oasst"}, 4, 6, {}),
    "oasst_trees.jsonl": ({"oasst"}, 3, 4, {"no_answer": 1}),
    "openai_preference.jsonl": ({"openai-preference"}, 1, 1, {"tie": 1}),
    "openwebui_chats.json": ({"openwebui"}, 3, 5, {}),
    "openwebui_feedback.json": ({"openwebui"}, 2, 4, {}),
    "pairs_hh.jsonl": ({"pairs"}, 2, 2, {}),
    "pairs_trl.jsonl": ({"pairs"}, 5, 5, {}),
    "questions.csv": ({"alpaca"}, 2, 2, {}),
    "requests.jsonl": ({"requests"}, 2, 2, {"failed_request": 1}),
    "responses.jsonl": ({"requests"}, 2, 0, {}),
    "sharegpt.jsonl": ({"sharegpt"}, 5, 1, {}),
    "spans.jsonl": ({"spans"}, 2, 1, {"not_a_model_run": 1}),
    "ultrafeedback.jsonl": ({"ultrafeedback"}, 2, 2, {}),
    "ultrafeedback_binarized.jsonl": ({"pairs"}, 1, 1, {"tie": 1}),
    "wildchat.jsonl": ({"wildchat"}, 2, 1, {"toxic": 1}),
}


def bring(home: Home, folder: Path, *rows: Any, name: str = "rows.jsonl") -> ImportResult:
    path = folder / name
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return import_file(path, home)


def logs(home: Home) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export_lines(home)]


def said(log: dict[str, Any]) -> list[tuple[Any, ...]]:
    names = ("key", "score", "value", "comment", "correction", "user_id")
    return [tuple(f.get(n) for n in names) for f in log["feedback"]]


def texts(log: dict[str, Any]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in log["messages"]]


@pytest.fixture
def sample(home: Home) -> Any:
    def read(name: str) -> list[dict[str, Any]]:
        import_file(EXPORTS / name, home)
        return logs(home)

    return read


def test_every_sample_is_listed_and_every_format_has_one() -> None:
    assert {p.name for p in EXPORTS.iterdir()} == set(FILES)
    with_samples = set().union(*(f[0] for f in FILES.values()))
    assert {r.name for r in READERS} == with_samples | {"langchain-uno"}


def test_a_format_can_be_named(home: Home, tmp_path: Path) -> None:
    """A table of classes has a column that looks like ms-swift's thumb."""
    turns = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": turns, "label": True}))
    assert import_file(path, home, format="Chat").formats == {"chat": 1}
    assert logs(home)[0]["feedback"] == []
    with pytest.raises(
        InputError, match=r"no format 'sharegtp'\. Known are: alpaca, chat, .*wildchat"
    ):
        import_file(path, home, format="sharegtp")
    wrong = import_file(path, home, format="langchain-uno")
    assert wrong.bad_rows == 1 and "no export of ours" in wrong.bad[0][1]


def test_the_guide_lists_every_format() -> None:
    page = Path(__file__).parents[3] / "docs" / "guides" / "import.md"
    rows = [line.split("|")[1].strip(" `") for line in page.read_text().splitlines() if "|" in line]
    assert set(rows) - {"format", "---"} == {r.name for r in READERS}


@pytest.mark.parametrize("name", FILES)
def test_the_whole_way_round(home: Home, tmp_path: Path, name: str) -> None:
    """Import, stats by reason, export, import into a fresh home; and again into the first."""
    formats, records, feedback, passed = FILES[name]
    result = import_file(EXPORTS / name, home)
    assert (result.bad, set(result.formats)) == ([], formats)
    assert (result.interactions, result.feedback) == (records, feedback)
    assert result.passed_over == passed
    before, counts = logs(home), stats(home)
    assert sum(counts["verdicts"].values()) == records == len(before)
    again = import_file(EXPORTS / name, home)
    assert (again.interactions, again.feedback, again.bad) == (0, 0, [])
    assert logs(home) == before
    if not before:
        return
    exported = tmp_path / "export.jsonl"
    exported.write_text("".join(line + "\n" for line in export_lines(home)), encoding="utf-8")
    fresh = Home.locate(tmp_path / "fresh")
    back = import_file(exported, fresh)
    assert (back.bad, back.interactions) == ([], records)
    assert logs(fresh) == before
    assert stats(fresh)["verdicts"] == counts["verdicts"]


def test_sharegpt(sample: Any) -> None:
    one, two, call, tool, greeting = sample("sharegpt.jsonl")
    assert texts(one)[0] == ("system", "You are a clerk.")
    assert [s[3] for s in said(one)] == ["Say the room too."] and said(two) == []
    assert call["tool_calls"] == [{"name": "weather", "args": {"city": "Bergen"}, "id": None}]
    assert texts(tool)[-2:] == [("tool", '{"degrees": 7}'), ("assistant", "It is 7 degrees.")]
    assert texts(greeting)[0] == ("assistant", "Hello, how can I help?")


def test_wildchat_and_lmsys(sample: Any) -> None:
    one, two = sample("wildchat.jsonl")
    assert (one["user_id"], one["thread_id"], one["model"]) == ("9f", "ab12", "gpt-4-0314")
    assert one["created_at"].startswith("2024-03-01T09:10:11")
    assert said(one) == [("follow_up", None, None, "With the article, please.", None, "9f")]
    assert two["language"] == "en"


def test_oasst_ranks_votes_and_askers(sample: Any) -> None:
    best, later, worst = sample("oasst_trees.jsonl")
    assert texts(worst)[-1][1] == "Use the oven."
    assert ("votes", 0.25, None, None, None, "v1") in said(worst)
    assert [s[4] for s in said(worst) if s[4]] == ["Hang it up in bunches in the shade."]
    assert ("follow_up", None, None, "How long does that take?", None, "v4") in said(best)
    assert (best["user_id"], later["user_id"]) == ("v1", "v4")


def test_oasst_messages_of_two_trees_lie_among_each_other(sample: Any) -> None:
    found = sample("oasst_flat.jsonl")
    assert [texts(f)[0][1] for f in found] == ["Which tea calms?"] * 3 + ["What is sage for?"]


def test_chatgpt_shows_the_branch_of_the_current_node(sample: Any, home: Home) -> None:
    one, two = sample("chatgpt.json")
    assert texts(one) == [("user", "How many days has a leap year?"), ("assistant", "366 days.")]
    assert texts(two)[-1] == ("assistant", "2024 is a leap year.")
    assert "And which year is this?" in texts(two)[2][1] and len(texts(two)) == 4
    result = import_file(EXPORTS / "chatgpt_feedback.json", home)
    assert (result.feedback, result.waiting) == (1, 0)
    assert ("thumb", 0.0, None, "Explain the rule.", None, "user-abc") in said(logs(home)[1])


def test_preferences_are_edits_of_the_rejected_answer(home: Home) -> None:
    for name, rejected, chosen in (
        ("openai_preference.jsonl", "Hi.", "Welcome to our house!"),
        ("pairs_hh.jsonl", "Just rub it.", "Hold it at 15 degrees and pull it towards you."),
        ("pairs_trl.jsonl", "It burns.", "Black."),
        ("ms_swift.jsonl", "A while.", "Six minutes from boiling."),
        ("lmarena.jsonl", "yatch", "y-a-c-h-t"),
        ("lmarena_55k.csv", "Yes.", "No, it is a mammal,\nand it breathes air."),
        ("ultrafeedback.jsonl", "It rains.", "Rain taps a slow song on the tin roof."),
        ("ultrafeedback_binarized.jsonl", "Three.", "One, two, three."),
    ):
        import_file(EXPORTS / name, home)
        [log] = [one for one in logs(home) if texts(one)[-1][1] == rejected]
        assert [s[4] for s in said(log) if s[4]] == [chosen], name


def test_pairs_that_part_early_are_compared_where_they_part(home: Home, tmp_path: Path) -> None:
    """lmsys/chatbot_arena_conversations: after the first turn each model has its own history."""
    ask = [{"role": "user", "content": "A rhyme on moon."}, {"role": "user", "content": "Again."}]
    sides = {
        name: [
            ask[0],
            {"role": "assistant", "content": x},
            ask[1],
            {"role": "assistant", "content": y},
        ]
        for name, x, y in (("a", "Soon.", "Noon."), ("b", "Star.", "Sun."))
    }
    row = {"winner": "model_a", "judge": "j", "model_b": "m2"}
    bring(home, tmp_path, {**row, **{f"conversation_{k}": v for k, v in sides.items()}})
    [log] = logs(home)
    assert texts(log) == [("user", "A rhyme on moon."), ("assistant", "Star.")]
    assert said(log) == [("correction", None, None, None, "Soon.", "j")]
    assert log["model"] == "m2"


def test_kto_and_ultrafeedback_scores(home: Home) -> None:
    import_file(EXPORTS / "kto.jsonl", home)
    assert [said(one)[0][:2] for one in logs(home)] == [("thumb", 1.0), ("thumb", 0.0)]
    import_file(EXPORTS / "ultrafeedback.jsonl", home)
    [good] = [one for one in logs(home) if "tin roof" in texts(one)[-1][1]]
    assert said(good)[0][3] == "A lively picture; keep the rhythm."
    assert said(good)[0][1] == pytest.approx(7.5 / 9)


def test_open_webui_ratings_find_their_messages(sample: Any, home: Home) -> None:
    one, two = sample("openwebui_feedback.json")
    assert [s[3] for s in said(one)] == ["At which heat?"]
    assert texts(two)[-1] == ("assistant", "Hot.")
    assert set(said(two)) == {
        ("rating", 0.0, 3.0, "Give a number.", None, "u-9"),
        ("reason", None, None, "too vague", None, "u-9"),
    }
    # A rating without a snapshot waits for the export of the chats.
    result = import_file(EXPORTS / "openwebui_chats.json", home)
    assert result.waiting == 0 and result.interactions == 1
    [new] = [log for log in logs(home) if texts(log)[-1][1] == "220 degrees."]
    assert said(new) == [("rating", 1.0, None, None, None, "u-9")]


def test_librechat_reads_every_rated_branch(sample: Any) -> None:
    by_answer = {texts(one)[-1][1]: said(one) for one in sample("librechat.json")}
    assert by_answer == {
        "Lime paint.": [
            ("thumb", 0.0, None, "Name a brand-free mix.", None, None),
            ("reason", None, None, "not helpful", None, None),
        ],
        "Lime paint, three parts lime and one part water.": [
            ("thumb", 1.0, None, None, None, None),
            ("reason", None, None, "accurate reliable", None, None),
        ],
    }


def test_librechat_messages_of_a_database(sample: Any) -> None:
    one, two = sample("librechat_flat.jsonl")
    assert [s[3] for s in said(one)] == ["Is it free?"]
    assert (one["user_id"], two["user_id"]) == ("65f1aa", "65f1aa")
    assert one["created_at"].startswith("2025-02-03T10:00:00")


def test_langfuse_scores_find_traces_and_observations(sample: Any) -> None:
    one, two = sample("langfuse.jsonl")
    assert (one["run_id"], one["root_run_id"], one["thread_id"]) == ("obs-1", "trace-1", "s1")
    assert said(one) == [("user-feedback", 0.0, None, "Name the order of the monks.", None, None)]
    assert said(two) == [("stars", None, 4.0, None, None, "annotator-1")]


def test_langsmith_traces_and_corrections(sample: Any) -> None:
    [log] = sample("langsmith.jsonl")
    assert (log["user_id"], log["thread_id"]) == ("u-5", "th-1")
    assert {(s[0], s[3], s[4]) for s in said(log)} == {
        ("user_score", "Say from where.", None),
        ("edit", None, "Line 4 from the station."),
        ("labels", '{"tone": "warmer", "length": "shorter"}', None),
    }


def test_logs_of_requests(home: Home) -> None:
    import_file(EXPORTS / "litellm.jsonl", home)
    one, two = logs(home)
    assert (one["run_id"], one["user_id"]) == ("chatcmpl-1", "u-17")
    assert one["created_at"].startswith("2024-04-05T19:34:38")
    assert [s[3] for s in said(one)] == ["In feet, please."] and texts(two)[-1][1] == "197 feet."
    import_file(EXPORTS / "requests.jsonl", home)
    ship, cost = logs(home)[2:]
    assert (ship["user_id"], cost["user_id"]) == ("u-12", "u-13")
    assert [said(ship)[0][1], said(cost)[0][1]] == [1.0, 0.0]


def test_blocks_of_the_providers(home: Home) -> None:
    import_file(EXPORTS / "anthropic.jsonl", home)
    look, high, brief = logs(home)
    assert look["tool_calls"] == [{"name": "tide", "args": {"day": "today"}, "id": "toolu_1"}]
    assert texts(high) == [
        ("system", "You look things up."),
        ("user", "What is the tide today?"),
        ("assistant", "I look."),
        ("tool", "3.2 m"),
        ("assistant", "High water is 3.2 metres."),
    ]
    assert [s[3] for s in said(high)] == ["Give the hour, too."] and said(look) == []
    assert texts(brief)[0] == ("system", "You are brief.")
    other = Home.locate(home.path.parent / "other")
    for name in ("responses.jsonl", "gemini.jsonl", "ai_sdk.jsonl"):
        import_file(EXPORTS / name, other)
    polite, hall, cheese, wine, step, cold = logs(other)
    assert texts(polite)[0] == ("system", "You are polite.")
    assert texts(polite)[-1] == ("assistant", "For how many, please?")
    assert hall["tool_calls"] == [{"name": "hall", "args": {"day": "today"}, "id": "call_9"}]
    assert texts(cheese) == [
        ("system", "You are brief."),
        ("user", "Name a cheese."),
        ("assistant", "Brie."),
    ]
    assert texts(wine) == [("user", "Name a wine."), ("assistant", "Riesling.")]
    assert step["tool_calls"][0]["name"] == "weather" and texts(cold)[-2] == (
        "tool",
        '{"degrees": -5}',
    )
    assert cold["run_id"] == "msg-bbbbbbbbbbbbbbbb"


def test_messages_in_rows_of_their_own(home: Home) -> None:
    import_file(EXPORTS / "assistants.jsonl", home)  # the API lists the latest first
    import_file(EXPORTS / "messages.tsv", home)
    ferry, pool, bar = logs(home)
    assert [s[3] for s in said(ferry)] == ["Shorter, please."] and ferry["thread_id"] == "thread_1"
    assert [s[3] for s in said(pool)] == ["Until when on Sunday?"]
    assert (pool["user_id"], bar["user_id"]) == ("u-1", "u-2")


ASKED = {"role": "user", "content": "x"}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"conversations": [{"from": "narrator", "value": "x"}]}, "role 'narrator'"),
    (
        {"messages": [{"role": "user", "content": [{"type": "widget", "body": "x"}]}]},
        "no words that can be read (blocks of the type widget)",
    ),
    ({"messages": [{"role": "user"}, {"role": "assistant"}]}, "neither content, parts nor tool"),
    ({"request": {"messages": [ASKED]}, "response": {"odd": 1}}, "no answer that"),
    ({"request": {"odd": 1}, "response": "y"}, "no messages that can be found"),
    ({"winner": "nobody", "conversation_a": [], "conversation_b": []}, "winner 'nobody'"),
    ({"prompt": "x", "completion": "y", "label": "perhaps"}, "neither true nor false"),
    ({"chosen": "a", "rejected": "b"}, "no 'prompt'"),
    ({"type": "GENERATION", "trace_id": "t", "input": {"a": 1}, "output": "y"}, "no messages"),
    ({"mapping": {"a": {"message": {"author": {}}, "parent": None}}}, "no author's role"),
    ({"mapping": {n: {"message": None, "parent": p} for n, p in ("ab", "ba")}}, "name each other"),
    ({"titel": "x", "text": "y"}, "of no known format"),
]  # fmt: skip


def test_what_cannot_be_read_is_a_bad_row(home: Home, tmp_path: Path) -> None:
    result = bring(home, tmp_path, *(row for row, _ in BAD))
    assert [n for n, _ in result.bad] == list(range(1, len(BAD) + 1))
    for (row, expected), (_, reason) in zip(BAD, result.bad, strict=True):
        assert expected in reason, row
    assert (result.bad_rows, result.interactions) == (len(BAD), 0)
    assert sum(result.bad_reasons.values()) == len(BAD)


PASSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": [ASKED, {"role": "assistant", "content": ""}]}, "no_answer"),
    ({"messages": [{**ASKED, "content": " "}, {"role": "ai", "content": "y"}]}, "empty_turn"),
    ({"prompt": "x", "chosen": "y", "rejected": ""}, "no_answer"),
    ({"prompt": "x", "chosen": "y", "rejected": "y"}, "tie"),
    ({"winner": "tie", "conversation_a": [], "conversation_b": []}, "tie"),
    ({"request": {"messages": [ASKED]}, "response": None}, "no_answer"),
    ({"mapping": {"a": {"message": None, "parent": None}}}, "empty_conversation"),
    ({"conversation_hash": "h", "toxic": True, "conversation": [ASKED]}, "toxic"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), PASSED)
def test_what_holds_nothing_is_passed_over(
    home: Home, tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    result = bring(home, tmp_path, row)
    assert (result.bad, result.passed_over, result.interactions) == ([], {reason: 1}, 0)


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": {"value": "Which quay?", "annotations": []}}],  # Assistants
        [{"text": "Which quay?"}],  # Bedrock Converse, Gemini
        {"parts": [{"text": "Which quay?"}]},
        [{"type": "input_text", "text": "Which quay?"}],  # Responses
        [{"type": "text-plain", "text": "Which quay?"}],  # LangChain's standard blocks
        [{"type": "reasoning", "text": "hm"}, "Which quay?"],
    ],
)
@pytest.mark.parametrize("role", ["User", "HUMAN", "prompter", "human"])
def test_the_words_of_a_user_in_every_shape(
    home: Home, tmp_path: Path, content: Any, role: str
) -> None:
    answer = {"role": "Chatbot", "text": "Six."}
    bring(home, tmp_path, {"messages": [{"role": role, "content": content}, answer]})
    [log] = logs(home)
    assert texts(log) == [("user", "Which quay?"), ("assistant", "Six.")]


@pytest.mark.parametrize(
    "time",
    [
        1712345678, 1712345678123, 1712345678123456, 1712345678123456789, "1712345678123",
        "2024-04-05T19:34:38Z", "2024-04-05 19:34:38.1 UTC", "2024-04-05T21:34:38+02:00",
        "2024-04-05T19:34:38.123456789Z", {"$date": "2024-04-05T19:34:38Z"},
        {"$date": {"$numberLong": "1712345678123"}},
        "Fri, 05 Apr 2024 19:34:38 GMT", "2024-04-05T19:34:38.000+0000", "2024-04-05 19:34:38+00",
        "2024-04-05T21:34:38+0200", "2024-04-05 15:34:38 -0400",
        "Fri Apr 05 2024 21:34:38 GMT+0200 (Central European Summer Time)",
    ],
)  # fmt: skip
def test_times(home: Home, tmp_path: Path, time: Any) -> None:
    turns = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
    bring(home, tmp_path, {"created_at": time, "messages": turns})
    found = datetime.fromisoformat(logs(home)[0]["created_at"].replace("Z", "+00:00"))
    assert int(found.timestamp()) == 1712345678


def test_broken_rows_of_every_format_are_read_or_refused() -> None:
    """Fields that are gone or of another type: InputError, or records that can be stored."""
    rng = random.Random(0)
    junk: list[Any] = [
        None, True, -1, 2.5, "", "x", "[1]", [], {}, [{}], ["x"], {"role": "user"}, "{", 1e300,
        10**30, "\ud800", [[["a"]]], [None], {"a": [1]},
    ]  # fmt: skip
    outcomes = {"read": 0, "refused": 0}
    for path in sorted(EXPORTS.iterdir()):
        for _, row in read_rows(path):
            for _ in range(15):
                broken = json.loads(json.dumps(row, ensure_ascii=True))
                for _ in range(rng.randint(1, 2)):
                    break_something(broken, rng, rng.choice(junk))
                try:
                    group = group_of(broken)
                    found = (
                        parse_group([broken], START, "default", group[0])
                        if group
                        else parse_row(broken, START, "default")
                    )
                except InputError:
                    outcomes["refused"] += 1
                    continue
                outcomes["read"] += 1
                for one in found.interactions:
                    one.model_dump_json()
                    said = [m for m in one.messages if m.role in ("user", "assistant")]
                    assert all(m.content.strip() or m.tool_calls for m in said)
    assert min(outcomes.values()) > 200


def break_something(value: Any, rng: random.Random, junk: Any) -> None:
    """Replace or take out something at a random depth."""
    while isinstance(value, dict | list) and value:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if not isinstance(value[key], dict | list) or not value[key] or rng.random() < 0.3:
            if rng.random() < 0.4:
                del value[key]
            else:
                value[key] = junk
            return
        value = value[key]
