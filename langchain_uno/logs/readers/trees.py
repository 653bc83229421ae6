"""Conversations as trees of messages: ChatGPT, Open WebUI, LibreChat, OpenAssistant.

Every branch that somebody rated is read, and the one that the app shows. OpenAssistant's trees are
read whole. A message's own id is the record's where it is unique, so that branches share records
and feedback in another file finds its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.logs.conversation import run_ref
from langchain_uno.logs.readers.base import (
    Chat,
    Found,
    Passed,
    Reader,
    Row,
    as_object,
    feedback_of,
    first,
    literal,
    names_of,
    objects,
    thumb,
)


@dataclass
class _Node:
    parent: str | None
    message: dict[str, Any] | None
    """None: nothing was said here (a tool's page, a hidden instruction)."""
    feedback: list[dict[str, Any]] = field(default_factory=list)


def _chain(nodes: Mapping[str, _Node], leaf: str) -> list[dict[str, Any]]:
    """The messages from the root to a leaf.

    Raises:
        InputError: a message names a parent that is not there, or itself.
    """
    out: list[dict[str, Any]] = []
    seen: set[str] = set()
    at: str | None = leaf
    while at is not None:
        if at in seen:
            raise InputError(f"the message {at!r} is its own ancestor")
        if at not in nodes:
            raise InputError(f"the message {at!r} is named as a parent and is not there")
        seen.add(at)
        node = nodes[at]
        if node.message is not None:
            own = {"id": at, "feedback": node.feedback} if node.feedback else {"id": at}
            out.append({**node.message, **own})
        at = node.parent
    return out[::-1]


def _branches(nodes: Mapping[str, _Node], shown: str | None) -> Iterator[list[dict[str, Any]]]:
    """Yield the branch that is shown, and those with feedback that are not part of one."""
    parents = {node.parent for node in nodes.values()}
    last = next((name for name in reversed(list(nodes)) if name not in parents), None)
    if last is None:
        raise InputError("its messages name each other as parents: there is no last one")
    rated = [name for name, node in nodes.items() if node.feedback]
    covered: set[str] = set()
    for leaf in (shown if shown in nodes and shown else last, *reversed(rated)):
        if leaf not in covered:
            chain = _chain(nodes, leaf)
            covered |= {one["id"] for one in chain}
            yield chain


def _chats(nodes: Mapping[str, _Node], shown: str | None, **about: Any) -> Iterator[Found]:
    found = False
    for chain in _branches(nodes, shown):
        if any(str(m.get("role")).lower() != "system" for m in chain):
            found = True
            yield Chat(chain, **about)
    if not found:
        yield Passed("empty_conversation")


def _words(**said: Any) -> list[dict[str, Any]]:
    """One piece of feedback, or none where nothing was said."""
    known = {k: v for k, v in said.items() if v not in (None, "")}
    return [known] if known.keys() - {"key", "user_id", "created_at"} else []


def _reason(value: Any) -> str | None:
    """A client's name of a reason as words: "not_helpful" becomes "not helpful"."""
    if isinstance(value, Mapping):
        value = first(value, "key", "label", "value")
    return value.replace("_", " ") if isinstance(value, str) and value.strip() else None


# -- ChatGPT ---------------------------------------------------------------------------------------

_SPOKEN = ("text", "multimodal_text", "code")


def _chatgpt(row: Row) -> Iterable[Found]:
    if "mapping" not in row:
        yield _chatgpt_feedback(row)
        return
    nodes: dict[str, _Node] = {}
    if not isinstance(row["mapping"], Mapping):
        raise InputError("'mapping' must be an object of messages")
    for name, one in row["mapping"].items():
        if not isinstance(one, Mapping):
            raise InputError(f"the message {name!r} must be an object")
        nodes[name] = _Node(one.get("parent"), _chatgpt_message(one.get("message")))
    user, _ = names_of(row)
    yield from _chats(
        nodes,
        row.get("current_node"),
        id=str(first(row, "conversation_id", "id") or ""),
        thread=first(row, "conversation_id", "id"),
        user=user,
        model=row.get("default_model_slug"),
        created_at=row.get("create_time"),
    )


def _chatgpt_message(given: Any) -> dict[str, Any] | None:
    """One message; None for what the conversation shows to nobody."""
    if not isinstance(given, Mapping):
        return None
    role, content = as_object(given.get("author")).get("role"), given.get("content")
    if not isinstance(content, Mapping) or not isinstance(role, str):
        raise InputError("a message has no author's role, or no content")
    hidden = as_object(given.get("metadata")).get("is_visually_hidden_from_conversation")
    to_a_tool = given.get("recipient") not in (None, "all")
    if hidden or to_a_tool or role == "tool" or content.get("content_type") not in _SPOKEN:
        return None
    parts = content.get("parts")
    said = parts if isinstance(parts, list) else [content.get("text") or ""]
    if not any(said):
        return None
    return {"role": role, "content": said, "created_at": given.get("create_time")}


def _chatgpt_feedback(row: Row) -> Found:
    """A row of message_feedback.json."""
    score = thumb(row["rating"])
    content = row.get("content")
    if isinstance(content, str) and content.strip():
        content = literal(content, "content")
    content = as_object(content)
    run = run_ref(first(row, "message_id", "id") or "")
    if score is None or not run:
        raise InputError("the rating is no thumb, or names no message")
    words = content.get("text") or ", ".join(filter(None, map(_reason, content.get("tags") or [])))
    return feedback_of(
        run,
        f"chatgpt-{run}",
        first(row, "create_time", "created_at"),
        key="thumb",
        score=score,
        comment=words or None,
        source="chatgpt",
        user_id=row.get("user_id"),
    )


# -- Open WebUI ------------------------------------------------------------------------------------


def _openwebui(row: Row) -> Iterable[Found]:
    if "data" in row and "meta" in row:
        yield from _rating(row)
        return
    chat = row.get("chat", row)
    yield from _chats(
        _openwebui_nodes(chat), _current(chat), **_openwebui_about(row, chat), **_time(row)
    )


def _rating(row: Row) -> Iterator[Found]:
    data, meta = row["data"], row["meta"] or {}
    if not isinstance(data, Mapping) or not isinstance(meta, Mapping):
        raise InputError("'data' and 'meta' must be objects")
    rating = data.get("rating")
    score = thumb(rating)
    if rating is not None and score is None:
        raise InputError(f"the rating {str(rating)[:40]!r} is neither 1 nor -1")
    who = {"user_id": row.get("user_id"), "created_at": row.get("created_at")}
    said = _words(
        key="rating",
        score=score,
        comment=data.get("comment"),
        value=as_object(data.get("details")).get("rating"),
        **who,
    )
    said += _words(key="reason", comment=_reason(data.get("reason")), **who)
    name = meta.get("message_id")
    if not said:
        yield Passed("empty_rating")
        return
    outer = as_object(row.get("snapshot")).get("chat")
    if not isinstance(outer, Mapping):
        if not name:
            raise InputError("there is neither a snapshot of the chat nor meta.message_id")
        for n, one in enumerate(said):
            stamp = one.pop("created_at", None)
            yield feedback_of(
                str(name), f"{row.get('id') or name}-{n}", stamp, source="open-webui", **one
            )
        return
    inner = outer.get("chat")
    chat = inner if isinstance(inner, Mapping) else outer
    nodes = _openwebui_nodes(chat)
    shown = name or _current(chat)
    if shown not in nodes:
        raise InputError(f"the snapshot has no message {str(shown)[:60]!r}")
    for node in nodes.values():
        node.feedback = []  # the snapshot's own ratings are other rows
    nodes[shown].feedback = said
    # Whoever rated may be another person than whoever asked.
    about = _openwebui_about({**row, **outer, "id": outer.get("id")}, chat)
    about["model"] = data.get("model_id") or about["model"]
    yield Chat(_chain(nodes, shown), **about, **_time(outer))


def _time(row: Row) -> dict[str, Any]:
    return {"created_at": first(row, "created_at", "timestamp")}


def _openwebui_about(row: Row, chat: Row) -> dict[str, Any]:
    models = chat.get("models")
    name = first(row, "id") or chat.get("id")
    return {
        "id": str(name or ""),
        "thread": str(name) if name else None,
        "user": names_of(row)[0],
        "model": models[0] if isinstance(models, list) and models else None,
    }


def _current(chat: Row) -> str | None:
    found = as_object(chat.get("history")).get("currentId")
    return found if isinstance(found, str) else None


def _openwebui_nodes(chat: Row) -> dict[str, _Node]:
    found = as_object(as_object(chat.get("history")).get("messages"))
    given = list(found.values()) or chat.get("messages")
    if not isinstance(given, list) or not given or not all(isinstance(m, Mapping) for m in given):
        raise InputError("the chat has no 'history.messages'")
    nodes: dict[str, _Node] = {}
    before: str | None = None
    for n, one in enumerate(given):
        name = str(one.get("id") or n)
        note = as_object(one.get("annotation"))
        said = _words(key="rating", score=thumb(note.get("rating")), comment=note.get("comment"))
        if said and (reason := _reason(note.get("reason"))):
            said += _words(key="reason", comment=reason)
        # without history the list is the branch
        parent = one.get("parentId") if found else before
        message = {
            "role": one.get("role"),
            "content": one.get("content") or "",
            "created_at": first(one, "timestamp"),
        }
        nodes[name] = _Node(parent, message, said)
        before = name
    return nodes


def _is_openwebui(row: Row) -> bool:
    whole = bool({"history", "messages"} & as_object(row.get("chat")).keys())
    rating = "rating" in as_object(row.get("data")) and "meta" in row
    return whole or "messages" in as_object(row.get("history")) or rating


# -- LibreChat -------------------------------------------------------------------------------------

_NO_PARENT = "00000000-0000-0000-0000-000000000000"


def _librechat(row: Row) -> Iterable[Found]:
    given = row.get("messages", row.get("messagesTree"))
    if not objects(given):
        raise InputError("'messages' must be a list of at least one message")
    assert isinstance(given, list)
    yield from _librechat_chats(_flat(given), row)


def _librechat_flat(rows: Sequence[Row]) -> Iterable[Found]:
    yield from _librechat_chats(rows, {"conversationId": rows[0].get("conversationId")})


def _flat(given: Iterable[Row]) -> list[Row]:
    """The messages of an export that nests them in ``children``, one after the other."""
    out: list[Row] = []
    stack = list(given)[::-1]
    while stack:
        one = stack.pop()
        out.append(one)
        children = one.get("children")
        if isinstance(children, list):
            stack += [c for c in children if isinstance(c, Mapping)][::-1]
    return out


def _librechat_chats(given: Sequence[Row], row: Row) -> Iterator[Found]:
    linked = any(m.get("parentMessageId") for m in given)
    nodes: dict[str, _Node] = {}
    before: str | None = None
    for n, one in enumerate(given):
        name = str(first(one, "messageId", "id") or n)
        parent = one.get("parentMessageId") if linked else before
        note = as_object(one.get("feedback"))
        text = first(note, "text", "comment")
        said = _words(key="thumb", score=thumb(note.get("rating")), comment=text)
        said += _words(key="reason", comment=_reason(note.get("tag")))
        spoke = one.get("isCreatedByUser")
        if not isinstance(spoke, bool):
            spoke = str(one.get("sender", "")).lower() == "user"
        content = one.get("content") if isinstance(one.get("content"), list) else one.get("text")
        message = {
            "role": "user" if spoke else "assistant",
            "content": content or one.get("text") or "",
            "created_at": first(one, "createdAt"),
        }
        failed = one.get("error") is True or (one.get("unfinished") is True and not content)
        nodes[name] = _Node(
            None if parent in (None, "", _NO_PARENT) else str(parent),
            None if failed else message,
            said,
        )
        before = name
    answered = any(n.message and n.message["role"] == "assistant" for n in nodes.values())
    if not answered and any(m.get("error") is True for m in given):
        yield Passed("failed_request")
        return
    models = [m.get("model") for m in given if m.get("model")]
    thread = row.get("conversationId") or given[0].get("conversationId")
    yield from _chats(
        nodes,
        None,
        id=str(thread or ""),
        thread=thread,
        user=names_of(row, *given)[0],
        model=models[-1] if models else None,
        created_at=row.get("createdAt"),
    )


def _is_librechat(row: Row) -> bool:
    given = row.get("messages", row.get("messagesTree"))
    return "isCreatedByUser" in row or (
        objects(given) and isinstance(given, list) and "isCreatedByUser" in given[0]
    )


def _librechat_group(row: Row) -> str | None:
    if "messages" in row or "messagesTree" in row:
        return None
    if not row.get("conversationId"):
        raise InputError("the message names no 'conversationId'")
    return str(row["conversationId"])


# -- OpenAssistant ---------------------------------------------------------------------------------


def _oasst(row: Row) -> Iterable[Found]:
    given: list[Row] = []
    stack: list[tuple[Any, str | None]] = [(row["prompt"], None)]
    while stack:
        one, parent = stack.pop()
        if not isinstance(one, Mapping):
            raise InputError("'replies' must be a list of objects")
        given.append({"parent_id": parent, **one})
        replies = one.get("replies") or []
        stack += [(r, str(one.get("message_id"))) for r in reversed(replies)]
    yield from _oasst_chats(given)


def _oasst_chats(given: Sequence[Row]) -> Iterable[Found]:
    nodes: dict[str, _Node] = {}
    siblings: dict[str | None, list[Row]] = {}
    for one in given:
        if not isinstance(one.get("message_id"), str):
            raise InputError("a message has no 'message_id'")
        if one.get("deleted") is True:
            yield Passed("deleted_message")
            continue
        parent = one.get("parent_id")
        said = []
        if (score := _agreed(one)) is not None:
            said.append({"key": "votes", "score": score})
        message = {
            "role": one.get("role"),
            "content": one.get("text") or "",
            "user_id": one.get("user_id"),
            "created_at": one.get("created_date"),
        }
        nodes[one["message_id"]] = _Node(parent, message, said)
        siblings.setdefault(parent, []).append(one)
    for tries in siblings.values():
        ranked = [t for t in tries if isinstance(t.get("rank"), int | float)]
        ranked = sorted((t for t in ranked if t.get("role") != "prompter"), key=lambda t: t["rank"])
        if len(ranked) > 1 and ranked[0]["rank"] < ranked[-1]["rank"] and ranked[0].get("text"):
            edit = {"key": "rank", "correction": ranked[0]["text"]}
            nodes[ranked[-1]["message_id"]].feedback.append(edit)
    if not any(str(n.message and n.message["role"]) != "prompter" for n in nodes.values()):
        yield Passed("no_answer")
        return
    root = given[0]
    name = str(root.get("message_tree_id") or root["message_id"])
    parents = {node.parent for node in nodes.values()}
    for leaf in [n for n in nodes if n not in parents]:
        chain = _chain(nodes, leaf)
        if not any(m["role"] == "assistant" for m in chain):
            yield Passed("no_answer")
            continue
        yield Chat(chain, id=name, language=root.get("lang"), created_at=root.get("created_date"))


def _agreed(one: Row) -> float | None:
    """Thumbs up among the thumbs that volunteers gave."""
    given = one.get("emojis")
    if isinstance(given, Mapping) and isinstance(given.get("name"), list):
        counts = given.get("count") or []
        given = dict(zip(given["name"], counts, strict=False))
    if not isinstance(given, Mapping):
        return None
    up, down = (n if isinstance(n := given.get(k), int) else 0 for k in ("+1", "-1"))
    return up / (up + down) if up + down > 0 else None


def _is_oasst(row: Row) -> bool:
    tree = isinstance(row.get("prompt"), Mapping) and "message_id" in row["prompt"]
    return tree or {"message_id", "parent_id", "text", "role"} <= row.keys()


def _oasst_group(row: Row) -> str | None:
    if isinstance(row.get("prompt"), Mapping):
        return None
    if not row.get("message_tree_id"):
        raise InputError("the message names no 'message_tree_id'")
    return str(row["message_tree_id"])


CHATGPT = Reader(
    "chatgpt",
    lambda row: (
        "mapping" in row or ("rating" in row and "conversation_id" in row and "messages" not in row)
    ),
    _chatgpt,
)
OPENWEBUI = Reader("openwebui", _is_openwebui, _openwebui)
LIBRECHAT = Reader("librechat", _is_librechat, _librechat, _librechat_group, _librechat_flat)
OASST = Reader("oasst", _is_oasst, _oasst, _oasst_group, _oasst_chats)
