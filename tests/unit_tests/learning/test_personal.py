"""What a few people want everywhere is theirs; what many want everywhere is everybody's."""

from __future__ import annotations

from langchain_uno.learning.personal import Mention, personal_wishes


def mentions(people: int, regions: int, rule: str, *, prefix: str = "p") -> list[Mention]:
    return [Mention(f"{prefix}{i}", rule, j) for i in range(people) for j in range(regions)]


HONEST = [
    Mention(f"h{i}", f"rule of {(i + k) % 6}", (i + k) % 6) for i in range(30) for k in range(3)
]


def test_a_few_people_who_ask_for_the_same_everywhere() -> None:
    planted = mentions(5, 6, "planted")
    found = personal_wishes(HONEST + planted * 40, min_regions=3, max_share=0.25)
    assert found == {(f"p{i}", "planted") for i in range(5)}


def test_writing_in_other_clusters_too_makes_no_wish_personal() -> None:
    # Everybody has logs in three regions, and other wishes in each of them.
    assert personal_wishes(HONEST, min_regions=3, max_share=0.25) == set()


def test_what_many_want_everywhere_is_no_personal_wish() -> None:
    general = mentions(12, 6, "short", prefix="h")
    assert personal_wishes(HONEST + general, min_regions=3, max_share=0.25) == set()
    assert len(personal_wishes(HONEST + general, min_regions=3, max_share=0.5)) == 12


def test_it_can_be_turned_off() -> None:
    assert personal_wishes(mentions(2, 9, "x"), min_regions=0, max_share=1.0) == set()
    assert personal_wishes([], min_regions=3, max_share=0.25) == set()


def test_people_who_had_it_already_are_not_counted_against_a_wish() -> None:
    # Half of the base's users want it short; two hundred later ones got short answers at once.
    general = mentions(15, 6, "short", prefix="h")
    later = [Mention(f"n{i}", "hum", i % 6, of_module=True) for i in range(200)]
    assert personal_wishes(HONEST + general + later, min_regions=3, max_share=0.25) == set()
    asked = [Mention(one.person, one.rule, one.region) for one in later]
    forgotten = personal_wishes(HONEST + general + asked, min_regions=3, max_share=0.25)
    assert len(forgotten) == 15
