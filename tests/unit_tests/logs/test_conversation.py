"""Language by script, run references, and the digests that link turns."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from uuid import UUID

import pytest
from toys import assistant, user

from langchain_uno.logs.conversation import (
    detect_language,
    language_of,
    link,
    run_ref,
    user_turn,
)
from langchain_uno.messages import clean_text
from langchain_uno.records import Message

LINES = Path(__file__).parents[2] / "data" / "feedback_lines.jsonl"
RUN = "0198c0de-1111-7222-8333-444455556666"


@pytest.mark.parametrize(
    "value", [RUN, RUN.upper(), UUID(RUN), f"lc_run--{RUN}", f"lc_run--{RUN}-0", f" run-{RUN}-12 "]
)
def test_run_ref_knows_every_form_of_an_id(value: object) -> None:
    assert run_ref(value) == RUN


def test_run_ref_leaves_other_ids_alone() -> None:
    assert run_ref(" order-7 ") == "order-7"
    assert run_ref(f"{RUN}x") == f"{RUN}x"
    assert run_ref("resp_" + "a" * 400) == "resp_" + "a" * 195


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Please write a letter", "en"),
        ("请帮我写一封信", "zh"),
        ("请用 Python 和 pandas 写一个脚本", "zh"),
        ("The word 你好 means hello in Chinese", "en"),
        ("手紙を書いてください", "ja"),
        ("편지를 써 주세요", "ko"),
        ("Напишите, пожалуйста, короткое письмо клиенту", "ru"),
        ("Bitte etwas kürzer und ohne Emojis", "de"),
        ("Hazlo un poco más corto, por favor", "es"),
        ("C'est parfait mais trop long", "fr"),
        ("rename getUserById to fetchUser", "en"),
        ("12345 !?", None),
        ("", None),
    ],
)
def test_detect_language(text: str, language: str | None) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize("language", ["en", "zh", "de", "es"])
def test_the_language_of_short_remarks(language: str) -> None:
    rows = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 300 and len({row["text"] for row in rows}) == 300
    wrong = {
        row["text"]: found
        for row in rows
        if (found := detect_language(row["text"])) != row["language"]
    }
    assert len(wrong) <= 0.02 * len(rows), wrong
    own = [row for row in rows if row["language"] == language and row["text"] in wrong]
    assert len(own) <= 4 and len([r for r in rows if r["language"] == language]) == 75


def test_the_answer_decides_where_the_user_says_too_little() -> None:
    assert language_of(["OK?"], "Der Termin ist am Dienstag um neun Uhr.") == "de"
    assert language_of(["question 3 red"], "The third question is about red.") == "en"


SHORT = (
    "ok thanks", "no idea", "summarize", "be concise", "no emojis", "as a table", "no intro",
    "again", "incorrect", "refund status", "vacation plan", "pasta recipe", "Bullets pls",
)  # fmt: skip
"""English words that the identifier takes for French, Italian, Spanish, German or Swedish."""


@pytest.mark.parametrize("text", SHORT)
def test_what_is_too_short_to_tell_is_no_foreign_language(text: str) -> None:
    for answer in ("", "Done.", "You can reset it on the account page: open the settings."):
        assert language_of([text], answer) == "en"


def test_short_remarks_in_a_conversation_keep_their_language() -> None:
    answers = {
        "en": "Done, as you asked for it.",
        "de": "Gerne, hier ist der Text, wie du ihn willst.",
        "es": "Claro, aqui lo tienes como lo pediste.",
        "zh": "好的，这是您要的内容。",
    }
    rows = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        assert language_of([row["text"]], answers[row["language"]]) == row["language"], row
    alone = [row for row in rows if language_of([row["text"]], "") != row["language"]]
    assert len(alone) <= 9 and not [row for row in alone if row["language"] == "en"]


def test_the_users_language_counts_not_the_system_prompts() -> None:
    assert language_of(["请写一封信"], "OK, here it is: Dear Sir") == "zh"
    assert language_of(["123"], "三百六十五") == "zh"
    assert language_of([], "") == "en"


def test_a_follow_up_finds_the_answer_before_it() -> None:
    first = link([("system", "Be kind."), ("user", "Write a poem.")], "Roses are red.")
    second = link(
        [
            ("system", "Be kind. Today is Tuesday."),
            ("user", " Write a poem.\n"),
            ("assistant", ""),
            ("tool", "looked up"),
            ("assistant", "Roses are red."),
            ("user", "Shorter."),
        ],
        "Red.",
    )
    assert second.before == first.after
    assert first.before is None
    other = link([("user", "Write a poem."), ("assistant", "Blue."), ("user", "Shorter.")], "Red.")
    assert other.before not in (None, first.after)


def test_an_answer_given_by_an_agent_step_is_no_follow_up() -> None:
    step = link([("user", "a"), ("assistant", "Let me look."), ("tool", "42")], "It is 42.")
    assert step.before is None and step.turn is None


def test_user_turn_is_what_was_said_after_the_last_answer() -> None:
    assert user_turn([user("a"), assistant("b"), user("c"), user("d")]) == "c\n\nd"
    assert user_turn([Message(role="system", content="s"), user("x"), user("y")]) == "y"
    assert user_turn([user("a"), assistant("b")]) == ""
    assert user_turn([user("a"), assistant("b"), user("[image_url]"), user("c")]) == "c"
    assert user_turn([user("a"), assistant("b"), user("[image_url] [file]")]) == ""


def test_clean_text_mends_lone_surrogates_only() -> None:
    assert clean_text("a\ud800b") == "a\ufffdb"
    assert clean_text("grüß 你好 \U0001f44d\x00") == "grüß 你好 \U0001f44d\x00"


def test_a_pasted_text_does_not_outvote_the_request() -> None:
    pasted = "Der Vertrag wird für die Dauer von zwei Jahren geschlossen. " * 40
    asked = "Now only the dates, in a table, and nothing else please"
    assert language_of([pasted, asked], "| date |\n| 1 May |") == "en"


def test_a_conversation_has_the_same_digests_however_it_was_read_before() -> None:
    """Digests of what was said before are kept: those of talks that share a beginning too."""

    def digest(*parts: str) -> bytes:
        return blake2b("".join(parts).encode("utf-8", "replace"), digest_size=16).digest()

    said: list[tuple[str, str]] = [("system", "Be kind.")]
    whole: list[str] = []
    for n in range(80):
        asked, answer, other = f" turn {n} \ud800", f"answer {n}\n", f"another {n}"
        for one in (other, answer, other):
            found = link([*said, ("user", asked)], one)
            new = [*whole, "\0u", asked.strip(), "\0a", one.strip()]
            assert found.after == digest(*new)
            assert found.before == (digest(*whole) if whole else None)
            assert found.turn == digest(asked.strip())
        said += [("user", asked), ("assistant", answer)]
        whole += ["\0u", asked.strip(), "\0a", answer.strip()]
    assert link(said, "").after is None
