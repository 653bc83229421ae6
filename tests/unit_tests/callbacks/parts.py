"""A chat model that says what it is told to, and what a home has of it."""

from __future__ import annotations

from pathlib import Path

from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from langchain_uno.home import Home
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.records import Interaction


def model(*answers: AIMessage | str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter(answers))


def logs(home: Path) -> list[Interaction]:
    with Journal(Home.locate(home).journal, readonly=True) as journal:
        return list(read(journal, join(journal)))
