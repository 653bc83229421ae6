"""A small fixed set of general instructions, checked by IFEval's own programs.

It shows what a release loses where nobody asked for anything: instructions of IFEval's kinds, on
subjects that the desk never hears of. The checkers are those of the package ``if-verifiable``;
kinds that need downloaded data (sentences, capital words) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_uno.chat_models import UNOChatModel
from langchain_uno.demo.asking import ask_chat

__all__ = ["INSTRUCTIONS", "ask_general", "is_kept"]

INSTRUCTIONS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    (
        "Write about the sea. Do not use any commas.",
        "punctuation:no_comma",
        {},
    ),
    (
        "Describe a cat in fewer than 30 words.",
        "length_constraints:number_words",
        {"num_words": 30, "relation": "less than"},
    ),
    (
        "Tell me about France in at least 40 words.",
        "length_constraints:number_words",
        {"num_words": 40, "relation": "at least"},
    ),
    (
        "Say something about music. Use the words piano and river.",
        "keywords:existence",
        {"keywords": ["piano", "river"]},
    ),
    (
        "Name a famous scientist. Include the word year in your answer.",
        "keywords:existence",
        {"keywords": ["year"]},
    ),
    (
        "Explain why the sky is blue without the word light.",
        "keywords:forbidden_words",
        {"forbidden_words": ["light"]},
    ),
    (
        "Tell a story about a king. Do not use the word crown.",
        "keywords:forbidden_words",
        {"forbidden_words": ["crown"]},
    ),
    (
        "Write about a garden and put your whole answer in double quotation marks.",
        "startend:quotation",
        {},
    ),
    (
        "Give a title to a poem about snow, in double angular brackets such as <<a title>>.",
        "detectable_format:title",
        {},
    ),
    (
        "Describe the moon in all lowercase English letters.",
        "change_case:english_lowercase",
        {},
    ),
    (
        "Write a note about lunch. At the end add a postscript that begins with P.S.",
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
    ),
    (
        "Describe a dog. Highlight one phrase with asterisks as in *a phrase*.",
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 1},
    ),
    (
        "Talk about trains and finish with these exact words: That is all.",
        "startend:end_checker",
        {"end_phrase": "That is all."},
    ),
    (
        "Describe a bird in JSON. Write the JSON alone.",
        "detectable_format:json_format",
        {},
    ),
    (
        "Write two sentences about rain. Use the word rain at least 2 times.",
        "keywords:frequency",
        {"keyword": "rain", "frequency": 2, "relation": "at least"},
    ),
    (
        "Say hello to a new colleague. Use the word hello less than 3 times.",
        "keywords:frequency",
        {"keyword": "hello", "frequency": 3, "relation": "less than"},
    ),
)
"""Request, IFEval's name of the instruction, and its arguments."""


def is_kept(instruction: str, arguments: Mapping[str, Any], answer: str) -> bool:
    """Whether an answer follows an instruction, by IFEval's checker.

    Raises:
        KeyError: IFEval knows no such instruction.
    """
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT

    checker = INSTRUCTION_DICT[instruction](instruction)
    checker.build_description(**arguments)
    return bool(answer.strip()) and bool(checker.check_following(answer))


def ask_general(chat: UNOChatModel, count: int) -> dict[str, Any]:
    """Ask the first ``count`` instructions; return how many were kept, and where they went."""
    some = INSTRUCTIONS[:count]
    replies = ask_chat(chat, [[("user", request)] for request, _, _ in some])
    kept = [
        is_kept(name, arguments, reply.text)
        for (_, name, arguments), reply in zip(some, replies, strict=True)
    ]
    return {
        "asked": len(some),
        "kept": sum(kept),
        "each": kept,
        "routes": [reply.route for reply in replies],
    }
