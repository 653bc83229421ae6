"""The one reader of messages: LangChain's objects and the dicts of files, to ``records.Message``.

Capture, import and serving all read here, so that a conversation is the same text wherever it comes
from: a follow-up finds its answer by it, and a request is routed as it was clustered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_uno.errors import InputError
from langchain_uno.records import AT_LIMIT, Message, Role

_SAID: dict[Role, str] = {
    "system": "system developer",
    "user": "user human prompter customer end_user",
    "assistant": "assistant ai bot chatbot chatgpt bing gemini agent api gpt model function_call",
    "tool": "tool function observation",
}
_ROLES = {word: role for role, words in _SAID.items() for word in words.split()}
"""The words of the formats that are read, in small letters."""
_LIMITS = ("length", "limit", "max_tokens", "max_output_tokens", "model_length", "token_limit",
           "error_limit", "model_context_window_exceeded")  # fmt: skip
_BROKEN = ("incomplete", "in_progress", "failed", "cancelled", "error", "content_filter",
           "content_filtered", "sensitive", "guardrail_intervened", "safety", "image_safety",
           "recitation", "blocklist", "prohibited_content", "spii", "malformed_function_call",
           "malformed_model_output", "malformed_tool_use", "unexpected_tool_call", "language",
           "other", "refusal", "pause_turn", "error_toxic", "user_cancel", "user_canceled",
           "timeout", "time_limit", "abort", "interrupted", "streaming",
           "insufficient_system_resource", "network_error")  # fmt: skip
"""How the APIs of OpenAI, Anthropic, Google, Bedrock, Cohere, Mistral, Ollama, DeepSeek, Zhipu,
watsonx, vLLM, ChatGPT, Claude and the AI SDK name the end of an answer that is not whole."""
_TWICE = re.compile(r"(.{3,}?)\1+")
"""LangChain joins the words of chunks that each name the end: ``lengthlength``."""
_MAX_DEPTH = 50
_SHORT, _LONG = 10**6, 10**30
_CONTENT = ("content", "parts", "value", "text", "message", "refusal", "blocks", "items",
            "contents")  # fmt: skip
_CALL_IDS = ("tool_call_id", "call_id", "toolCallId", "toolUseId", "tool_use_id", "id")
_NO_TEXT = ("reasoning", "think", "thought", "redacted_thinking", "summary_text", "tool",
            "function_call", "step-", "source-", "data-", "dynamic-tool",
            "server_tool")  # fmt: skip
"""Blocks that begin like this are no words of the message: they are passed over."""
_MEDIA = ("image", "audio", "video", "file", "document", "media", "inline", "attachment")
"""What stands in the type of a block that has no words by its nature."""

_THINKING = re.compile(
    r"(?P<fence>^[ \t]*```)"
    r"|(?P<open><(?:(?:seed:|longcat_)?think|(?:ant)?thinking|thought|reasoning)>|\[THINK\]|◁think▷"
    r"|<\|(?:begin_of_thought|START_THINKING|inner_prefix)\|>|<\|channel>thought\b)"
    r"|(?P<close></(?:(?:seed:|longcat_)?think|(?:ant)?thinking|thought|reasoning)>|\[/THINK\]"
    r"|◁/think▷|<\|(?:end_of_thought|END_THINKING|inner_suffix)\|>|<channel\|>)"
    r"|(?P<block><details\s[^>]*\btype=\"reasoning\"[^>]*>|^:::thinking\b)"
    r"|(?P<unblock></details>|^:::[ \t]*$)",
    re.MULTILINE | re.IGNORECASE,
)
"""What stands around the thoughts of models where a server does not parse them (DeepSeek, Qwen,
Seed-OSS, LongCat, Magistral, Kimi, OpenThoughts, Command A, Apertus, Gemma; Claude asked to think),
and where apps store them: Open WebUI's details, LibreChat's :::thinking."""
_MARKS = ("think>", "thinking>", "thought>", "reasoning>", "think]", "think▷", "_thought|>",
          "_thinking|>", "<|inner_", "<|channel>thought",
          'type="reasoning"', ":::thinking")  # fmt: skip
_HARMONY = ("<|channel|>", "<|start|>assistant<|channel|>")
_SOLUTION = re.compile(
    r"<\|(?:(?:begin|end)_of_solution|(?:START|END)_RESPONSE)\|>|\A\s*<answer>(?=.*</answer>\s*\Z)"
    r"|</answer>\s*\Z",
    re.DOTALL,
)
"""What stands around the answer where thoughts stood before it (Hunyuan: ``<answer>``)."""
_FINAL = re.compile(r"<\|channel\|>final\b[^\n]*?<\|message\|>")
_END = re.compile(r"<\|(?:end|return)\|>")


def incomplete(end: str | None) -> str | None:
    """Return what is wrong with an answer that ended like this; None: it is whole.

    Args:
        end: a provider's finish reason, or the status of its response.
    """
    word = (end or "")[-400:].rpartition(".")[2].lower()  # FinishReason.MAX_TOKENS
    if twice := _TWICE.fullmatch(word):
        word = twice.group(1)
    if word in _LIMITS:
        return AT_LIMIT
    return f"incomplete: the answer ended by {end!r}" if word in _BROKEN else None


def json_of(text: str, otherwise: Any = None) -> Any:
    """Return the value of a JSON text; ``otherwise`` where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return otherwise


def clean_text(text: str) -> str:
    """Return ``text`` as valid UTF-8 text: lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_of(content: Any, role: str = "user") -> str:
    """Return a message's content as text: text blocks joined, a user's media as ``[image_url]``.

    A block with a text is text, whatever its type is called (``text``, ``input_text``,
    ``output_text``, ``refusal``, none as in Gemini's parts); thinking and calls are left out. Other
    blocks (a provider's search, a reference) stand as such a mark where no block has text.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        return "" if content is None else str(content)
    return _joined([_block(block) for block in content], role)


def _block(block: Any) -> tuple[str, str]:
    """Return a block's text, and what it is called where it has none but may say something."""
    if isinstance(block, str):
        return block, ""
    if not isinstance(block, Mapping) or block.get("thought") is True:
        return "", ""
    text = block.get("text", block.get("refusal", block.get("transcript")))
    if text is None and block.get("type") == "text":  # OpenTelemetry's
        text = block.get("content")
    if isinstance(text, Mapping):  # an Assistants thread's {"value", "annotations"}
        text = text.get("value")
    kind = str(block.get("type") or "") if isinstance(text, str) else _kind(block)
    if kind.startswith(_NO_TEXT):
        return "", ""
    return (text, "") if isinstance(text, str) else ("", kind)


def _joined(blocks: Sequence[tuple[str, str]], role: str) -> str:
    """Join the texts of blocks, with marks for those that have none."""
    spoken = any(text.strip() for text, _ in blocks)
    return "".join(
        text or f"[{kind[:40]}]"
        for text, kind in blocks
        if text or (kind and not (spoken and (role == "assistant" or not _is_media(kind))))
    )


def _is_media(kind: str) -> bool:
    return any(word in kind.lower() for word in _MEDIA)


def without_thinking(text: str) -> str:
    """Return an answer without its thoughts, stripped; the text itself where there are none.

    Of thoughts that were cut off nothing is left. An end without a beginning ends thoughts whose
    opening tag stood in the prompt.
    """
    if text.lstrip().startswith(_HARMONY):  # gpt-oss: what follows the last final message
        _, *finals = _FINAL.split(text)
        return _END.split(finals[-1])[0].strip() if finals else ""
    # Single characters are found by far quicker: capture asks this of every answer in a prompt.
    tagged = "<" in text or "[" in text or "◁" in text
    if not tagged and not (":" in text and ":::" in text):
        return text
    low = text.lower()
    if not any(mark in low for mark in _MARKS):
        return text
    kept: list[str] = []
    at, quoted, inside, fenced, found = 0, 0, "", False, False
    for tag in _THINKING.finditer(text):
        what = tag.lastgroup or ""
        around = text[tag.start() - 1 : tag.start()], text[tag.end() : tag.end() + 1]
        if what == "fence":
            fenced = fenced if inside else not fenced
        elif fenced or around in (("`", "`"), ('"', '"'), ("'", "'")):
            continue  # an answer that shows or names such a tag
        elif what in ("open", "block"):
            if not inside and around[0] == "`":
                quoted += 1
            elif not inside:
                kept.append(text[at : tag.start()])
                inside, found = what, True
        elif quoted and not inside:
            quoted -= 1
        elif inside == "block" if what == "unblock" else inside != "block":
            kept = kept if inside else []
            at, inside, found = tag.end(), "", True
    if not found:
        return text
    return _SOLUTION.sub("", "".join(kept if inside else [*kept, text[at:]])).strip()


def _kind(block: Mapping[str, Any]) -> str:
    """What a block is called: its type, else its first field (Gemini's ``inlineData``)."""
    return str(block.get("type") or block.get("content_type") or next(iter(block), "block"))


def message_fields(message: BaseMessage) -> dict[str, Any]:
    """Return a LangChain message as the plain fields of a :class:`Message`: capture's quick way.

    Texts are as they came; what is not said is not there. Chunks and ``ChatMessage`` are read as
    what they stand for; an unknown role is the user's.
    """
    kind = message.type.removesuffix("MessageChunk").lower()
    role = _ROLES.get(kind) or _ROLES.get(str(getattr(message, "role", "")).lower(), "user")
    text = text_of(message.content, role)
    if role == "tool" and not text and message.content:
        text = json.dumps(message.content, ensure_ascii=False, default=str)
    fields: dict[str, Any] = {"role": role, "content": text}
    if message.name:
        fields["name"] = message.name
    if isinstance(message, AIMessage):
        if message.tool_calls:
            fields["tool_calls"] = message.tool_calls
    elif role == "tool":
        fields["tool_call_id"] = getattr(message, "tool_call_id", None)
    return fields


def from_langchain(messages: Sequence[BaseMessage]) -> list[Message]:
    """Return LangChain messages as records, at the moment of serving: models read text alone.

    Raises:
        InputError: a message holds an image, audio, a video, a file, or (unless the model wrote
            it: a call of a provider's own tool, say) another block without text.
    """
    out = []
    for message in messages:
        _refuse_media(message)
        fields = message_fields(message)
        calls = [
            {"name": c["name"], "args": c["args"], "id": c["id"] or ""}
            for c in fields.get("tool_calls", ())
        ]
        text = clean_text(fields["content"])
        out.append(Message.model_validate({**fields, "content": text, "tool_calls": calls}))
    return out


def _refuse_media(message: BaseMessage) -> None:
    given = [] if isinstance(message.content, str) else message.content
    for block in (one for one in given if not isinstance(one, str)):
        kind, says = _kind(block), any(_block(block))  # thinking and calls say nothing
        # A text beside a picture is its caption.
        if isinstance(block.get("text", block.get("refusal")), str):
            says = kind.endswith(("image", "image_url", "audio", "video"))
        if says and (not isinstance(message, AIMessage) or _is_media(kind)):
            raise InputError(
                f"A message of type {message.type!r} holds a block of type {kind[:40]!r}: the "
                "model reads text alone. Leave it out, or put what it says into words."
            )


def read_turns(given: Any) -> list[Message]:
    """Return what one message of a file says: mostly one turn, more where it carries tool results.

    Reads OpenAI's chat messages and Responses items, Anthropic's, Gemini's and Bedrock's blocks,
    the AI SDK's parts, Assistants threads, LangChain's dumps and ShareGPT's turns. An item without
    words (reasoning, a search) gives none.

    Raises:
        InputError: it is none of them, a part of it is of the wrong type, or its words are in
            blocks of an unknown type.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"must be an object, not {type(given).__name__}")
    # LangChain's constructor form, and its old one
    inner = given.get("kwargs", given.get("data"))
    body = inner if isinstance(inner, Mapping) else given
    kind = str(body.get("type") or "")
    if not body.get("role"):
        if kind == "function_call":
            return [Message(role="assistant", content="", tool_calls=[_call(body)])]
        if kind == "function_call_output":
            return [_result(body)]
        if kind in ("reasoning", "item_reference") or kind.endswith(("_call", "_call_output")):
            return []
    role, word = _role(given, body)
    content = _content(body)
    told = body.get("toolInvocations")  # AI SDK 4's, where no part names them
    if isinstance(told, list) and not isinstance(content, list | Mapping):
        content = [*({"toolInvocation": one} for one in told), *([content] if content else [])]
    if word == "function_call":  # ShareGPT: the call is the turn's text
        return [_told_call(str(content or ""))]
    if role == "tool":
        blocks = content if isinstance(content, list) else []
        results = [r for b in blocks if isinstance(b, Mapping) and (r := _tool_block(b)[1])]
        return results or [_result({k: v for k, v in body.items() if k != "id"})]
    calls = body.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InputError("has tool_calls that are not a list")
    if isinstance(body.get("function_call"), Mapping):  # OpenAI's older form
        calls = [*calls, body["function_call"]]
    if content is None and not calls and not body.keys() & {*_CONTENT, "audio"}:
        raise InputError("has neither content, parts nor tool calls")
    turns = _turns(role, content)
    if calls:
        last = next((t for t in reversed(turns) if t.role == role), turns[-1])
        last.tool_calls = _merged(last.tool_calls, [_call(c) for c in calls])
    if body.get("name") is not None:
        turns[-1].name = clean_text(str(body["name"]))
    return turns


def _content(body: Mapping[str, Any]) -> Any:
    """The first field that holds something; None: there is none."""
    audio = body.get("audio")  # what OpenAI's models said aloud
    spoken = audio.get("transcript") if isinstance(audio, Mapping) else None
    values = [v for v in (*map(body.get, _CONTENT), spoken) if v is not None]
    found = next(filter(None, values), values[0] if values else None)
    if isinstance(found, str) and found.lstrip().startswith("[{"):  # a database's column of JSON
        blocks = json_of(found)
        if isinstance(blocks, list) and all(isinstance(b, dict) and "type" in b for b in blocks):
            return blocks
    return found


def _turns(role: Role, content: Any) -> list[Message]:
    """Split a content into turns: words and calls of ``role``, and the results between them."""
    if isinstance(content, Mapping):
        inner = content.get("parts", content.get("content"))
        if not isinstance(inner, list) and not {"type", "text"} & content.keys():
            raise InputError("has a content of type dict")
        content = inner if isinstance(inner, list) else [content]
    if content is None or isinstance(content, str):
        return [Message(role=role, content=clean_text(content or ""))]
    if not isinstance(content, list):
        raise InputError(f"has a content of type {type(content).__name__}")
    out: list[Message] = []
    blocks: list[tuple[str, str]] = []
    calls: list[dict[str, Any]] = []

    def flush() -> None:
        kinds = [kind for _, kind in blocks]
        if kinds and not calls and not any(not kind or _is_media(kind) for kind in kinds):
            raise InputError(
                f"has no words that can be read (blocks of the type {', '.join(kinds)[:80]})"
            )
        if blocks or calls:
            text = clean_text(_joined(blocks, role))
            out.append(Message(role=role, content=text, tool_calls=list(calls)))
        blocks.clear()
        calls.clear()

    for block in content:
        if isinstance(block, Mapping):
            call, result = _tool_block(block)
            if call:
                calls.append(call)
            if result:
                flush()
                out.append(result)
            if call or result:
                continue
        if any(read := _block(block)):
            blocks.append(read)
    flush()
    return out or [Message(role=role, content="")]


def _tool_block(block: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Message | None]:
    """Return the call and the result that a block holds, each None where it holds none."""
    for name in ("toolUse", "functionCall", "function_call", "toolInvocation"):
        if isinstance(block.get(name), Mapping):
            inner = block[name]
            return _call(inner), (_result(inner) if "result" in inner else None)
    for name in ("toolResult", "functionResponse", "function_response"):
        if isinstance(block.get(name), Mapping):
            return None, _result(block[name])
    kind = str(block.get("type") or "").replace("-", "_")
    if kind.endswith(("tool_result", "tool_response", "call_response", "function_call_output")):
        return None, _result(block)
    if kind in ("tool_use", "server_tool_use", "function_call") or (
        kind.startswith(("tool_", "dynamic_tool")) and ("toolCallId" in block or "name" in block)
    ):
        named = {"name": str(block["type"])[5:], **block}  # the AI SDK's "tool-search"
        return _call(named), (_result(block) if block.get("output") is not None else None)
    if kind == "tool_call" and isinstance(block.get("tool_call"), Mapping):  # LibreChat
        inner = block["tool_call"]
        return _call(inner), (_result(inner) if inner.get("output") is not None else None)
    return None, None


def _result(body: Mapping[str, Any]) -> Message:
    """Return a tool's result, under whichever names it comes."""
    names = ("content", "output", "result", "response", "value", "text", "parts")
    content = next((body[k] for k in names if body.get(k) is not None), "")
    if isinstance(content, Mapping) and "value" in content:  # the AI SDK's {"type": "json", ...}
        content = content["value"]
    text = content if isinstance(content, str) else ""
    if isinstance(content, list) and all(isinstance(b, Mapping | str) for b in content):
        text = text_of([b for b in content if isinstance(b, str) or "text" in b])
    if not text and content not in ("", None, []):
        text = json.dumps(content, ensure_ascii=False, default=str)
    call_id = next((body[k] for k in _CALL_IDS if body.get(k)), None)
    name = body.get("name", body.get("toolName"))
    return Message(
        role="tool",
        content=clean_text(text),
        name=clean_text(str(name)) if name is not None else None,
        tool_call_id=clean_text(str(call_id)) if call_id is not None else None,
    )


def _told_call(text: str) -> Message:
    found = json_of(text)
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(c, Mapping) and "name" in c for c in calls):
        return Message(role="assistant", content=clean_text(text))
    return Message(role="assistant", content="", tool_calls=[_call(c) for c in calls])


def _merged(calls: list[dict[str, Any]], more: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both lists, without the calls that LangChain names in the blocks and beside them."""
    known = {c["id"] for c in more if c["id"]}
    return [c for c in calls if c["id"] not in known] + more


def _role(given: Mapping[str, Any], body: Mapping[str, Any]) -> tuple[Role, str]:
    """Return the role, and the word that named it."""
    names = ("role", "role_type", "type", "from", "sender", "author", "speaker")
    said = [one.get(k) for one in (body, given) for k in names]
    if isinstance(given.get("id"), list) and given["id"]:  # [..., "HumanMessage"]
        said.append(given["id"][-1])
    said = [s.get("role") if isinstance(s, Mapping) else s for s in said]
    for word in filter(None, said):
        if found := role_named(word):
            return found
    first = next(filter(None, said), None)
    raise InputError(f"has the role {first!r}; known are system, user, assistant, tool")


def role_named(word: Any) -> tuple[Role, str] | None:
    """Return the role that a word stands for, and its plain form; None: it stands for none."""
    name = str(word).strip().removesuffix("Chunk").lower()
    name = name.removesuffix("message").removeprefix("role_").rstrip("_")
    return (_ROLES[name], name) if name in _ROLES else None


def _call(call: Any) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise InputError("has a tool call that is not an object")
    inner = next((v for k in ("function", "custom") if isinstance(v := call.get(k), Mapping)), call)
    args: Any = next(
        (inner[k] for k in ("arguments", "args", "input") if inner.get(k) is not None), {}
    )
    if isinstance(args, str):
        raw = args
        args = json_of(raw or "{}")
        if not isinstance(args, Mapping):  # a custom tool's text, or what a model wrote wrongly
            args = {"_raw": clean_text(raw)}
    name = inner.get("toolName", inner.get("name"))
    if not isinstance(args, Mapping) or not isinstance(name, str):
        raise InputError("has a tool call without a name and an object of arguments")
    call_id = next((call[k] for k in _CALL_IDS if call.get(k)), None)
    return {
        "name": clean_text(name),
        "args": map_texts(dict(args), clean_text),
        "id": clean_text(str(call_id)) if call_id else None,
    }


def map_texts(value: Any, change: Callable[[str], str], depth: int = 0) -> Any:
    """Return a value of JSON with every text in it changed, names of fields too.

    A long whole number (a card's, a phone's) is changed as its digits are.

    Raises:
        InputError: nested too deeply.
    """
    if isinstance(value, str):
        return change(value)
    if depth > _MAX_DEPTH:
        raise InputError("nested too deeply")
    if isinstance(value, int | float) and _SHORT <= abs(value) < _LONG and value == int(value):
        digits = str(int(value))
        return value if (clean := change(digits)) == digits else clean
    if isinstance(value, list | tuple):
        return [map_texts(v, change, depth + 1) for v in value]
    if isinstance(value, Mapping):
        return {change(str(k)): map_texts(v, change, depth + 1) for k, v in value.items()}
    return value
