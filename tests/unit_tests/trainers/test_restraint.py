"""The embedded judge tells who obeys a rule that does not hold from who does not."""

from __future__ import annotations

from langchain_uno.demo.answers import render_answer
from langchain_uno.demo.asking import held_out
from langchain_uno.demo.drawing import make_world
from langchain_uno.models.loading import load_prompt_set, shared_engine
from langchain_uno.recipe import load_recipe
from langchain_uno.records import Message
from langchain_uno.trainers.restraint import Restraint, look_for_overreach
from langchain_uno.trainers.verifier import VerifyItem


def test_rules_obeyed_where_they_do_not_hold_are_seen() -> None:
    world = make_world(78)
    language = world.language()
    asked = held_out(world, 2)
    items, base, restrained, overreaching = [], [], [], []
    for n, one in enumerate(asked):
        free = sorted(set(language.rules) - set(one.wishes))
        idle = [r for r in free if language.rules[r].place != "layout"][n % 5]
        said = [Message(role="user", content=one.query.text)]
        items.append(VerifyItem(str(n), said, [], idle=[language.rules[idle].text]))
        base.append(render_answer(language, one.query, []))
        restrained.append(render_answer(language, one.query, one.wishes))
        overreaching.append(render_answer(language, one.query, [*one.wishes, idle]))
    judge = (shared_engine(None), load_prompt_set("embedded"), load_recipe("embedded"))
    seen = look_for_overreach(items, base, overreaching, *judge)
    assert seen.could == len(asked) == 16
    assert seen.did >= 14
    assert look_for_overreach(items, base, restrained, *judge).did <= 1
    assert look_for_overreach(items, base, base, *judge).did == 0
    paper = load_recipe("paper")
    assert look_for_overreach(items, base, overreaching, *judge[:2], paper) == Restraint()
