"""A simulated service whose truth a program checks: tasks, rules, users, noise, and their feedback.

It makes the bundled model's training data, its final test, and the service of the demo. Its
figures say that the pipeline works; they say nothing about a real model's gains.
"""

from __future__ import annotations

from langchain_uno.demo.answers import Check, Query, check_answer, render_answer
from langchain_uno.demo.drawing import make_world
from langchain_uno.demo.worlds import Preference, User, World, load_world, save_world

__all__ = [
    "Check",
    "Preference",
    "Query",
    "User",
    "World",
    "check_answer",
    "load_world",
    "make_world",
    "render_answer",
    "save_world",
]
