"""User-role turns that no person wrote: heartbeats, timers, events, clients' own task prompts.

Chat clients and agents send them under the user's role. They are told by their form alone: a turn
that is one JSON or XML envelope, a protocol's token, a bracketed header, the fixed markup of a
known client. What people mean by their words is not looked at.
"""

from __future__ import annotations

import json
import re

_SPOKEN = re.compile(
    r"(?:user[_-])?(?:query|message|input)\Z|"
    r"(?:user|human|question|text|content|prompt|request|comment|feedback)\Z",
    re.IGNORECASE,
)
"""Fields and tags in which apps wrap what a person typed."""
_BESIDE = re.compile(r"(?:role|id|user_?id|name|lang|language|locale)\Z", re.IGNORECASE)
"""What may stand beside them in the envelope of a person's words."""
_HTML = re.compile(
    r"(?:html|body|p|div|span|b|i|u|s|em|strong|small|sub|sup|mark|a|ul|ol|li|dl|dt|dd|pre|code|kbd"
    r"|br|hr|img|blockquote|q|h[1-6]|table|thead|tbody|tr|th|td|svg|details|summary|section)\Z",
    re.IGNORECASE,
)
"""Elements of pages: rich-text fields wrap people's words in them."""
_TAG = re.compile(r"<([A-Za-z][\w.:-]{0,60})(?:\s[^<>]{0,500}?)?\s*(/?)>")
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL)

_SYSTEM_LINE = re.compile(
    # "System: [2026-03-01 02:11 UTC] ...", "System (untrusted): ... (calm-reef, code 0)"
    r"system(?: \([^)\n]{1,30}\))?:[ \t]*"
    r"(?:\[[^\]\n]{0,40}\d\d(?::|-)\d\d[^\]\n]{0,40}\].*|.*\bcode -?\d+\))\Z",
    re.IGNORECASE,
)
_METADATA = re.compile(
    r"[^\n]{0,80}\((?:untrusted )?metadata[^)\n]{0,40}\):\s*\n```", re.IGNORECASE
)
_TASK = re.compile(
    # Open WebUI (titles, tags, searches), LibreChat's titles, LangChain's summaries
    r"### Task:[^\n]*\n.*(?:<chat_history>|^### Chat History|JSON format: ?\{)|"
    r"Provide a concise, 5-word-or-less title for the conversation, using title case|"
    r"Create a concise, 3-5 word (?:phrase|title) with an emoji|"
    r"<role>\s*Context Extraction Assistant\s*</role>|"
    # coding agents
    r"This session is being continued from a previous conversation that ran out|"
    r"# AGENTS\.md instructions for |\[Request interrupted by user[^\]\n]{0,40}\]\Z|"
    # chat rooms
    r"<@[A-Z0-9]{6,20}> has (?:joined|left) the (?:channel|group)\.?\Z",
    re.DOTALL | re.MULTILINE,
)
"""Prompts that clients send for themselves, under the user's role."""
_FORMS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "a timer's or an event's header",
        re.compile(
            # "[cron:9f2c nightly]", "[webhook/deploy]"; and without an id where the words are fixed
            r"\[(?:(?:cron|heartbeat|timer|trigger|scheduler?|job|event|hook|webhook|system|"
            r"automation|subagent)[:/#][^\]\n]{1,200}|"
            r"(?:cron|heartbeat|cron job|scheduled (?:task|job|run|event|reminder)|"
            r"system (?:message|event|notification|reminder)|"
            r"automated (?:message|task|reminder)|subagent (?:context|result|message))"
            r"(?:[ :\-][^\]\n]{0,200})?)\]",
            re.IGNORECASE,
        ),
    ),
    (
        "a protocol's token",
        re.compile(
            # Not every name in capitals: people paste ERR_CONNECTION_REFUSED and ask what it means.
            r"(?:_*(?:HEARTBEAT|PING|KEEP-?ALIVE|NO-?OP)_*|"
            r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*_(?:OK|ACK|SKIP|REPLY|DONE|NONE))[.!]?\Z|"
            # "HEARTBEAT: ... HEARTBEAT_OK": the head names the token of the answer
            r"(?P<head>[A-Z]{4,20}):.{0,4000}\b(?P=head)_(?:OK|ACK|SKIP|DONE|NONE)\b|"
            # "... reply NO_REPLY": a token of the kind that clients listen for
            r".{0,4000}\b(?:reply|respond|answer)(?: only| exactly| with| just)*:?"
            r"[ \t]*[\"'`]?[A-Z]+_(?:OK|SKIP|REPLY|DONE|NONE)[\"'`]?[.!]?\Z",
            re.DOTALL,
        ),
    ),
    ("a client's task prompt", _TASK),
)


def client_task(text: str) -> bool:
    """Whether a turn is a prompt that a known client sends for itself: for a title, a summary."""
    return _TASK.match(text.lstrip()) is not None


def machine_shape(text: str, *, pasted: bool = False) -> str | None:
    """Return which machine's form a whole turn has; None: a person may have written it.

    Args:
        text: a user-role turn.
        pasted: whether data alone may be what a person gives (a request may be a pasted document;
            a remark on an answer is none).
    """
    turn = text.strip()
    if not turn:
        return None
    for what, pattern in _FORMS:
        if pattern.match(turn):
            return what
    if all(_SYSTEM_LINE.match(line.strip()) for line in turn.splitlines() if line.strip()):
        return "a system's line"
    if pasted:
        return None
    if (head := _METADATA.match(turn)) and _is_envelope(turn[head.end() - 3 :]):
        return "a block of metadata"
    if _is_envelope(turn):
        return "a JSON envelope"
    return "an XML envelope" if _is_tagged(turn) else None


def _is_envelope(turn: str) -> bool:
    """Whether it is one JSON object (or a list of them) that wraps nobody's words."""
    fenced = _FENCED.match(turn)
    body = fenced.group(1).strip() if fenced else turn
    if body[:1] not in ("{", "[") or body[-1:] not in ("}", "]"):
        return False
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return False
    every = found if isinstance(found, list) else [found]
    return bool(every) and all(isinstance(one, dict) and one and _is_data(one) for one in every)


def _is_data(one: dict[str, object]) -> bool:
    names = [name for name in one if (name, one[name]) != ("type", "text")]
    said = any(_SPOKEN.match(name) and isinstance(one[name], str) for name in names)
    return not (said and all(_SPOKEN.match(n) or _BESIDE.match(n) for n in names))


def _is_tagged(turn: str) -> bool:
    """Whether it is a row of XML blocks, none of which wraps a person's words or is of a page."""
    at = 0
    while at < len(turn):
        tag = _TAG.match(turn, at)
        if tag is None or _SPOKEN.match(tag.group(1)) or _HTML.match(tag.group(1)):
            return False
        at = tag.end()
        if not tag.group(2):
            end = f"</{tag.group(1)}>"
            at = turn.find(end, at)
            if at < 0:
                return False
            at += len(end)
        while at < len(turn) and turn[at].isspace():
            at += 1
    return True
