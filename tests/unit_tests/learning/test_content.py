"""What an answer quotes from the request must survive: words, names, digits, in any script."""

from __future__ import annotations

import pytest

from langchain_uno.learning.content import kept_share, request_text
from langchain_uno.records import Message

REQUEST = "Tell the buyer about the lamp Brailon: the price is 45 euros; the maker is Skond."
FIRST = "About the lamp Brailon: The price is 45 euros. The maker is Skond."


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (FIRST, True),
        ("Hello!\nABOUT the lamp Brailon:\n- The maker is Skond.\n- The price is 45 euros.", True),
        (FIRST.replace("45", "54"), False),
        (FIRST.replace("45", "455"), False),
        (FIRST.replace("Brailon", "Brailo"), False),
        (FIRST.replace(" The maker is Skond.", ""), False),
        ("", False),
    ],
)
def test_a_lost_word_shows(answer: str, whole: bool) -> None:
    share = kept_share(REQUEST, FIRST, answer)
    assert (share == 1.0) == whole
    assert 0.0 <= share <= 1.0


def test_one_word_of_ten_is_a_tenth() -> None:
    assert kept_share("a b c d e f g h i j", "j i h g f e d c b a", "a b c d e f g h i") == 0.9


def test_nothing_quoted_is_nothing_lost() -> None:
    assert kept_share("What is love?", "Baby, don't hurt me.", "") == 1.0
    assert kept_share("", "", "x") == 1.0


def test_chinese_is_read_character_by_character() -> None:
    request, first = "介绍台灯:价格是45欧元", "台灯的价格是45欧元。"
    assert kept_share(request, first, "你好!台灯,价格:45欧元,是的。") == 1.0
    assert kept_share(request, first, "你好!台灯,价格:54欧元,是的。") < 1.0


def test_only_what_users_wrote_is_the_request() -> None:
    roles = (("system", "s"), ("user", "one"), ("assistant", "two"), ("user", "three"))
    assert request_text([Message(role=r, content=c) for r, c in roles]) == "one\nthree"
