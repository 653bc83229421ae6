"""Conversations as trees of messages: ChatGPT, Open WebUI, LibreChat, OpenAssistant.

Every branch that somebody rated is read, and the one that the app shows. OpenAssistant's trees are
read whole. A message's own id is the record's where it is unique, so that branches share records
and feedback in another file finds its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.logs.conversation import run_ref
from langchain_uno.logs.names import USER_KEYS, first_name
from langchain_uno.logs.readers.base import (
    Chat,
    Found,
    Passed,
    Reader,
    Row,
    about,
    as_object,
    feedback_of,
    first,
    literal,
    objects,
    thumb,
)
from langchain_uno.records import Feedback

_Node = dict[str, Any]
"""One message: ``id``, ``parent`` (an id, or None), ``feedback``, ``role``, ``content`` and
``created_at``. Without a role nothing was said here (a tool's page, a hidden instruction)."""


_ENDS = ("error", "done", "status", "finish_reason", "metadata")
"""Fields by which a message says that it is not whole."""


def _end_of(message: Row) -> dict[str, Any]:
    return {name: message[name] for name in _ENDS if name in message}


def _chain(nodes: Mapping[str, _Node], leaf: str) -> list[_Node]:
    """The messages from the root to a leaf.

    Raises:
        InputError: a message names a parent that is not there, or itself.
    """
    out: dict[str, _Node] = {}
    at: str | None = leaf
    while at is not None:
        if at in out:
            raise InputError(f"the message {at!r} is its own ancestor")
        if at not in nodes:
            raise InputError(f"the message {at!r} is named as a parent and is not there")
        out[at] = nodes[at]
        at = nodes[at]["parent"]
    return [one for one in reversed(out.values()) if "role" in one]


def _chats(nodes: Mapping[str, _Node], shown: Any, **about: Any) -> Iterator[Found]:
    """Yield the branch that is shown, and those with feedback that are not part of one."""
    parents = {node["parent"] for node in nodes.values()}
    last = next((name for name in reversed(list(nodes)) if name not in parents), None)
    if last is None:
        raise InputError("its messages name each other as parents: there is no last one")
    rated = [name for name, node in nodes.items() if node["feedback"]]
    covered: set[str] = set()
    found = False
    for leaf in (shown if shown in nodes else last, *reversed(rated)):
        if leaf in covered:
            continue
        chain = _chain(nodes, leaf)
        covered |= {one["id"] for one in chain}
        if any(str(one["role"]).lower() != "system" for one in chain):
            found = True
            yield Chat(chain, **{**about, "model": nodes[leaf].get("model") or about["model"]})
    if not found:
        yield Passed("empty_conversation")


def _by_id(found: Sequence[_Node], linked: bool) -> dict[str, _Node]:
    """The messages by their ids; where none names a parent, each follows the one before."""
    if not linked:
        for before, one in pairwise(found):
            one["parent"] = before["id"]
    return {one["id"]: one for one in found}


def _flat(roots: Sequence[Any], below: str) -> list[Row]:
    """The messages of trees that nest them in the field ``below``, one after the other.

    Each has its parent's ``message_id`` as ``parent_id``.

    Raises:
        InputError: one of "replies" is no object; elsewhere those are passed over.
    """
    out: list[Row] = []
    stack: list[tuple[Any, str | None]] = [(one, None) for one in reversed(roots)]
    while stack:
        one, parent = stack.pop()
        if isinstance(one, Mapping):
            out.append({"parent_id": parent, **one})
            more = one.get(below) or []
            more = more[::-1] if isinstance(more, list) else [None]
            stack += [(r, str(one.get("message_id"))) for r in more]
        elif below == "replies":
            raise InputError(f"{below!r} must be a list of objects")
    return out


def _reason(value: Any) -> str | None:
    """A client's name of a reason as words: "not_helpful" becomes "not helpful"."""
    if isinstance(value, Mapping):
        value = first(value, "key", "label", "value")
    return value.replace("_", " ") if isinstance(value, str) and value.strip() else None


def _rated(
    key: str, rating: Any, comment: Any, reason: Any, value: Any = None, **who: Any
) -> list[dict[str, Any]]:
    """A thumb with its words, and the reason that a client lets people choose."""
    who = {k: v for k, v in who.items() if v}
    told = {"score": thumb(rating), "value": value, "comment": comment}
    said = {k: v for k, v in told.items() if v not in (None, "")}
    found = [{**who, "key": key, **said}] if said else []
    if words := _reason(reason):
        found.append({**who, "key": "reason", "comment": words})
    return found


# -- ChatGPT ---------------------------------------------------------------------------------------

_SPOKEN = ("text", "multimodal_text", "code")


def _chatgpt(row: Row) -> Iterable[Found]:
    if "mapping" not in row:
        yield _chatgpt_feedback(row)
        return
    if not isinstance(row["mapping"], Mapping):
        raise InputError("'mapping' must be an object of messages")
    nodes: dict[str, _Node] = {}
    for name, one in row["mapping"].items():
        if not isinstance(one, Mapping):
            raise InputError(f"the message {name!r} must be an object")
        said = _chatgpt_message(one.get("message"))
        nodes[name] = {"id": name, "parent": one.get("parent"), "feedback": [], **said}
    name = first(row, "conversation_id", "id")
    told = {**about(row), "id": str(name or ""), "thread": name}
    yield from _chats(nodes, row.get("current_node"), **told)


def _chatgpt_message(given: Any) -> dict[str, Any]:
    """One message; nothing for what the conversation shows to nobody."""
    if not isinstance(given, Mapping):
        return {}
    role, content = as_object(given.get("author")).get("role"), given.get("content")
    if not isinstance(content, Mapping) or not isinstance(role, str):
        raise InputError("a message has no author's role, or no content")
    hidden = as_object(given.get("metadata")).get("is_visually_hidden_from_conversation")
    to_a_tool = given.get("recipient") not in (None, "all")
    if hidden or to_a_tool or role == "tool" or content.get("content_type") not in _SPOKEN:
        return {}
    parts = content.get("parts")
    said = parts if isinstance(parts, list) else [content.get("text") or ""]
    if not any(said):
        return {}
    return {**_end_of(given), "role": role, "content": said, "created_at": given.get("create_time")}


def _chatgpt_feedback(row: Row) -> Feedback:
    """A row of message_feedback.json."""
    score = thumb(row["rating"])
    content = row.get("content")
    if isinstance(content, str) and content.lstrip()[:1] == "{":
        content = literal(content, "content")
    elif isinstance(content, str):
        content = {"text": content}  # Dify's
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
        user_id=first_name(USER_KEYS, row),
    )


# -- Open WebUI ------------------------------------------------------------------------------------


def _openwebui(row: Row) -> Iterable[Found]:
    if "data" in row and "meta" in row:
        yield from _openwebui_feedback(row)
        return
    chat = row.get("chat", row)
    yield from _chats(_openwebui_nodes(chat), _current(chat), **_openwebui_about(row, chat))


def _openwebui_feedback(row: Row) -> Iterator[Found]:
    data, meta = row["data"], row["meta"] or {}
    if not isinstance(data, Mapping) or not isinstance(meta, Mapping):
        raise InputError("'data' and 'meta' must be objects")
    rating = data.get("rating")
    if rating is not None and thumb(rating) is None:
        raise InputError(f"the rating {str(rating)[:40]!r} is neither 1 nor -1")
    said = _rated(
        "rating",
        rating,
        data.get("comment"),
        data.get("reason"),
        as_object(data.get("details")).get("rating"),
        user_id=row.get("user_id"),
        created_at=row.get("created_at"),
    )
    name = meta.get("message_id")
    outer = as_object(row.get("snapshot")).get("chat")
    if not said:
        yield Passed("empty_rating")
    elif isinstance(outer, Mapping):
        inner = outer.get("chat")
        chat = inner if isinstance(inner, Mapping) else outer
        nodes = _openwebui_nodes(chat)
        shown = name or _current(chat)
        if shown not in nodes:
            raise InputError(f"the snapshot has no message {str(shown)[:60]!r}")
        for node in nodes.values():
            node["feedback"] = []  # the snapshot's own ratings are other rows
        nodes[shown]["feedback"] = said
        told = _openwebui_about(outer, chat)
        # Whoever rated may be another person than whoever asked.
        told["user"] = first_name(USER_KEYS, {**row, **outer})
        told["model"] = data.get("model_id") or told["model"]
        yield Chat(_chain(nodes, shown), **told)
    elif not name:
        raise InputError("there is neither a snapshot of the chat nor meta.message_id")
    else:
        for n, one in enumerate(said):
            stamp = one.pop("created_at", None)
            own = f"{row.get('id') or name}-{n}"
            yield feedback_of(str(name), own, stamp, source="open-webui", **one)


def _openwebui_about(row: Row, chat: Row) -> dict[str, Any]:
    models = chat.get("models")
    name = first_name(("id", "_id"), row, chat)
    model = models[0] if isinstance(models, list) and models else row.get("model")
    return {**about(row), "id": name or "", "thread": name, "model": model}


def _current(chat: Row) -> Any:
    return as_object(chat.get("history")).get("currentId")


def _openwebui_nodes(chat: Row) -> dict[str, _Node]:
    """The messages of a chat; without a history its list is the branch that is shown.

    The list of a chat of HuggingFace's UI has all branches.
    """
    found = as_object(as_object(chat.get("history")).get("messages"))
    given = list(found.values()) or chat.get("messages")
    if not objects(given):
        raise InputError("the chat has no 'history.messages'")
    nodes = []
    branches = _has_branches(given)
    for n, one in enumerate(given):
        note = as_object(one.get("annotation")) or {"rating": one.get("score") or None}
        above = one.get("ancestors") or [None]
        said = (note.get(name) for name in ("rating", "comment", "reason"))
        nodes.append(
            {
                **_end_of(one),
                "id": str(one.get("id") or n),
                "feedback": _rated("rating", *said),
                "parent": above[-1] if branches else one.get("parentId") if found else None,
                "role": first(one, "role", "from"),
                "content": one.get("content") or "",
                "model": one.get("model"),
                "created_at": first(one, "timestamp", "createdAt"),
            }
        )
    return _by_id(nodes, bool(found) or branches)


def _has_branches(messages: Any) -> bool:
    return objects(messages) and any(isinstance(m.get("ancestors"), list) for m in messages)


def _is_openwebui(row: Row) -> bool:
    whole = bool({"history", "messages"} & as_object(row.get("chat")).keys())
    rating = "rating" in as_object(row.get("data")) and "meta" in row
    listed = "messages" in as_object(row.get("history")) or _has_branches(row.get("messages"))
    return whole or listed or rating


# -- LibreChat -------------------------------------------------------------------------------------

_NO_PARENT = "00000000-0000-0000-0000-000000000000"


def _librechat(row: Row) -> Iterable[Found]:
    given = row.get("messages", row.get("messagesTree"))
    if not objects(given):
        raise InputError("'messages' must be a list of at least one message")
    yield from _librechat_chats(_flat(given, "children"), row)


def _librechat_chats(given: Sequence[Row], row: Row | None = None) -> Iterator[Found]:
    """The messages of one conversation, as an export or a database has them."""
    nodes = []
    for n, one in enumerate(given):
        note = as_object(one.get("feedback"))
        parent = one.get("parentMessageId")
        node: _Node = {
            "id": str(first(one, "messageId", "id") or n),
            "parent": None if parent in (None, "", _NO_PARENT) else str(parent),
            "feedback": _rated(
                "thumb", note.get("rating"), first(note, "text", "comment"), note.get("tag")
            ),
        }
        nodes.append(node)
        content = one.get("content") if isinstance(one.get("content"), list) else one.get("text")
        if _yes(one.get("error")) or (_yes(one.get("unfinished")) and not content):
            continue
        spoke = _yes(one.get("isCreatedByUser"))
        if spoke is None:
            spoke = str(one.get("sender", "")).lower() == "user"
        node["role"] = "user" if spoke else "assistant"
        node["content"] = content or one.get("text") or ""
        node["created_at"] = first(one, "createdAt")
        node |= {"done": not _yes(one.get("unfinished")), **_end_of(one)}
    answered = any(node.get("role") == "assistant" for node in nodes)
    if not answered and any(_yes(m.get("error")) for m in given):
        raise Passed("failed_request")
    told = about(row or {}, *reversed(given))
    told["thread"] = (row or {}).get("conversationId") or given[0].get("conversationId")
    told["id"] = str(told["thread"] or "")
    yield from _chats(_by_id(nodes, any(m.get("parentMessageId") for m in given)), None, **told)


def _yes(value: Any) -> bool | None:
    """A truth value, or a table's word for one; None: it is none."""
    return {"true": True, "false": False}.get(str(value).lower())


def _is_librechat(row: Row) -> bool:
    given = row.get("messages", row.get("messagesTree"))
    return "isCreatedByUser" in row or (objects(given) and "isCreatedByUser" in given[0])


def _librechat_group(row: Row) -> str | None:
    if "messages" in row or "messagesTree" in row:
        return None
    return str(row.get("conversationId") or "")  # a table holds one conversation


# -- OpenAssistant ---------------------------------------------------------------------------------


def _oasst(row: Row) -> Iterable[Found]:
    yield from _oasst_chats(_flat([row["prompt"]], "replies"))


def _oasst_chats(given: Sequence[Row]) -> Iterable[Found]:
    nodes: dict[str, _Node] = {}
    siblings: dict[str | None, list[Row]] = {}
    for one in given:
        if not isinstance(one.get("message_id"), str):
            raise InputError("a message has no 'message_id'")
        if one.get("deleted") is True:
            yield Passed("deleted_message")
            continue
        score = _agreed(one)
        nodes[one["message_id"]] = {
            "id": one["message_id"],
            "parent": one.get("parent_id"),
            "feedback": [] if score is None else [{"key": "votes", "score": score}],
            "role": one.get("role"),
            "content": one.get("text") or "",
            "user_id": one.get("user_id"),
            "created_at": one.get("created_date"),
        }
        siblings.setdefault(one.get("parent_id"), []).append(one)
    for tries in siblings.values():
        ranked = [t for t in tries if isinstance(t.get("rank"), int | float)]
        ranked = sorted((t for t in ranked if t.get("role") != "prompter"), key=lambda t: t["rank"])
        if len(ranked) > 1 and ranked[0]["rank"] < ranked[-1]["rank"] and ranked[0].get("text"):
            edit = {"key": "rank", "correction": ranked[0]["text"]}
            nodes[ranked[-1]["message_id"]]["feedback"].append(edit)
    if not any(node["role"] != "prompter" for node in nodes.values()):
        raise Passed("no_answer")
    root = given[0]
    told = {**about(root), "id": str(root.get("message_tree_id") or root["message_id"])}
    parents = {node["parent"] for node in nodes.values()}
    for leaf in [n for n in nodes if n not in parents]:
        chain = _chain(nodes, leaf)
        if not any(m["role"] == "assistant" for m in chain):
            yield Passed("no_answer")
            continue
        yield Chat(chain, **told)


def _agreed(one: Row) -> float | None:
    """Thumbs up among the thumbs that volunteers gave."""
    given = one.get("emojis")
    if isinstance(given, Mapping) and isinstance(given.get("name"), list):
        given = dict(zip(given["name"], given.get("count") or [], strict=False))
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
LIBRECHAT = Reader("librechat", _is_librechat, _librechat, _librechat_group, _librechat_chats)
OASST = Reader("oasst", _is_oasst, _oasst, _oasst_group, _oasst_chats)
