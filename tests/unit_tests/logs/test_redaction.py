"""Personal data goes out before storing; nothing else does."""

from __future__ import annotations

import time

import pytest
from toys import log, user

from langchain_uno.logs.redaction import Redactor, no_redaction
from langchain_uno.records import Feedback, Message

REDACT = Redactor()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("mail ann.b+c@mail.example.org now", "mail [REDACTED_EMAIL] now"),
        ("发到ann@example.org谢谢", "发到[REDACTED_EMAIL]谢谢"),
        ("card 4111 1111 1111 1111.", "card [REDACTED_CREDIT_CARD]."),
        ("卡号4111111111111111，谢谢", "卡号[REDACTED_CREDIT_CARD]，谢谢"),
        ("host 192.168.10.7 is down", "host [REDACTED_IP] is down"),
        ("a@b.org and c@d.org", "[REDACTED_EMAIL] and [REDACTED_EMAIL]"),
    ],
)
def test_found_and_replaced(text: str, clean: str) -> None:
    assert REDACT(text)[0] == clean


@pytest.mark.parametrize(
    "text",
    [
        "Version 1.2.3 costs 120.50 on 14.05.2026.",
        "Order 4111 1111 1111 1112 fails the check digit.",
        "Numbers 999.999.999.999 and @home and a@b",
        "你好 1234-5678 \U0001f44d",
        "",
    ],
)
def test_left_alone(text: str) -> None:
    assert REDACT(text) == (text, {})


def test_counts_by_kind_and_stays_the_same_when_done_again() -> None:
    clean, counts = REDACT("a@b.org c@d.org 10.0.0.1")
    assert counts == {"email": 2, "ip": 1}
    assert REDACT(clean) == (clean, {})


def test_every_text_of_a_record_is_redacted() -> None:
    mail = "a@b.org"
    one = log(
        1,
        mail,
        mail,
        messages=[
            user(mail),
            Message(
                role="assistant",
                content="",
                tool_calls=[{"name": "send", "args": {"to": [mail], "n": 1}, "id": "1"}],
            ),
        ],
        tool_calls=[{"name": "send", "args": {"to": mail}, "id": "1"}],
        error=f"ValueError: {mail}",
    )
    one.feedback.append(
        Feedback(run_id=one.run_id, comment=mail, correction=mail, value=mail, score=1.0)
    )
    clean, counts = REDACT.interaction(one)
    assert mail not in clean.model_dump_json() and mail in one.model_dump_json()
    assert counts == {"email": 8}
    assert REDACT.feedback(one.feedback[0])[1] == {"email": 3}


def test_own_detectors() -> None:
    def orders(text: str) -> list[dict[str, int]]:
        at = text.find("ORDER-")
        return [{"start": at, "end": at + 8}] if at >= 0 else []

    assert Redactor({"order": orders})("see ORDER-42!")[0] == "see [REDACTED_ORDER]!"
    assert no_redaction()("a@b.org")[0] == "a@b.org"
    with pytest.raises(ValueError, match="short lower-case word"):
        Redactor({"Bad Kind": orders})


def test_quick_on_hostile_text() -> None:
    for text in (
        "a." * 100_000 + "@",
        "@" * 100_000,
        "a@" * 50_000,
        "0000 " * 40_000,
        "1.1." * 50_000,
    ):
        start = time.process_time()
        REDACT(text)
        assert time.process_time() - start < 5
