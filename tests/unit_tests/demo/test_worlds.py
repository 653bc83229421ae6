"""Worlds: sizes asked for, seen and unseen apart by construction, one seed one world."""

from __future__ import annotations

from langchain_uno.demo.answers import Query
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.language import load_language
from langchain_uno.demo.service import held_out_queries, plan_visits

LANGUAGE = load_language()


def test_sizes() -> None:
    assert len(LANGUAGE.families) >= 8
    assert len(LANGUAGE.rules) >= 24
    for rule in LANGUAGE.rules.values():
        assert len(rule.wordings) + len(rule.unseen_wordings) >= 8
        assert not set(rule.wordings) & set(rule.unseen_wordings)
    for family in LANGUAGE.families.values():
        assert len(family.frames) + len(family.unseen_frames) >= 12
        assert len(family.facts) + len(family.unseen_facts) >= 12
        assert not set(family.frames) & set(family.unseen_frames)
        assert not set(family.facts) & set(family.unseen_facts)
    unseen = LANGUAGE.feedback["unseen_noise"]
    seen = {line for lines in LANGUAGE.feedback["noise"].values() for line in lines}
    assert sum(len(lines) for lines in unseen.values()) >= 100
    assert not seen & {line for lines in unseen.values() for line in lines}


def test_no_wording_is_shared_between_rules() -> None:
    words = [w for r in LANGUAGE.rules.values() for w in (*r.wordings, *r.unseen_wordings)]
    assert len(words) == len(set(words))


def test_same_seed_same_world() -> None:
    assert make_world(5).model_dump_json() == make_world(5).model_dump_json()
    assert make_world(6).preferences != make_world(5).preferences


def test_preferences_span_covered_to_foreign() -> None:
    world = make_world(2)
    assert min(world.distance.values()) == 0.0
    assert max(world.distance.values()) == 1.0
    conditions = [
        p.condition for s in range(6) for ps in make_world(s).preferences.values() for p in ps
    ]
    assert {"urgent", "beginner", "expert", "kind", None} == set(conditions)


def test_logs_and_tests_share_no_person_request_frame_fact_or_name() -> None:
    world = make_world(1)
    visits = plan_visits(world, 1000)
    held_out = held_out_queries(world, 100)
    assert not {v.query.text for v in visits} & {q.text for _, q in held_out}
    assert not {v.query.entity for v in visits} & {q.entity for _, q in held_out}
    assert not {f for v in visits for f in v.query.facts} & {
        f for _, q in held_out for f in q.facts
    }
    assert not {v.user.id for v in visits} & {u.id for u, _ in held_out}
    assert not {frame(v.query) for v in visits} & {frame(q) for _, q in held_out}
    assert len({frame(q) for _, q in held_out}) == 2 * len(world.families)


def frame(query: Query) -> str:
    """The request without what was filled in and without its attributes' sentences."""
    words = LANGUAGE.feedback["attributes"]
    said = [p for group in words.values() for a in group.values() for p in a["unseen_phrases"]]
    text = query.text.replace("; ".join(query.facts), "FACTS").replace(query.entity, "NAME")
    for phrase in said:
        text = text.replace(phrase, "")
    return text.replace(query.kind, "KIND").strip()
