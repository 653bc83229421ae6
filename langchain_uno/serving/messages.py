"""LangChain's messages at the moment of serving: text alone, since the models read nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage

from langchain_uno.errors import InputError
from langchain_uno.messages import from_langchain as read_messages
from langchain_uno.messages import text_of
from langchain_uno.records import Message

_MEDIA = ("image", "audio", "video", "file", "media", "document", "inline_data")
"""Parts of the types and keys by which providers' blocks of media are named."""


def from_langchain(messages: Sequence[BaseMessage]) -> list[Message]:
    """Return LangChain messages as records.

    Raises:
        InputError: a message holds an image, audio, a video, a file, or (unless the model wrote
            it: a call of a provider's own tool, say) another block without text.
    """
    for message in messages:
        if not isinstance(message.content, str):
            _refuse_media(message)
    return read_messages(messages)


def _refuse_media(message: BaseMessage) -> None:
    for block in message.content:
        if isinstance(block, str) or isinstance(block.get("text", block.get("refusal")), str):
            continue
        if not text_of([block]):  # thinking, or a call
            continue
        named = str(block.get("type") or next(iter(block), "nothing"))
        if not isinstance(message, AIMessage) or any(word in named for word in _MEDIA):
            raise InputError(
                f"A message of type {message.type!r} holds a block of type {named[:40]!r}: the "
                "model reads text alone. Leave it out, or put what it says into words."
            )
