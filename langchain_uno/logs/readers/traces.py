"""Logs of requests: LangSmith, Langfuse, LiteLLM, and rows with a request and its response."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_uno.errors import InputError
from langchain_uno.logs.conversation import run_ref, user_turn
from langchain_uno.logs.join import FOLLOW_UP
from langchain_uno.logs.readers.base import (
    FEEDBACK,
    RATINGS,
    Chat,
    Found,
    Passed,
    Reader,
    Row,
    about,
    as_object,
    feedback_in,
    feedback_of,
    first,
    number,
    objects,
    read_all,
    scores_in,
    thumb,
)
from langchain_uno.logs.readers.bodies import asked, body_of, cut_off, said
from langchain_uno.logs.trace import own_call
from langchain_uno.messages import incomplete, text_of
from langchain_uno.records import Feedback

_ANSWERS = ("output", "answer", "content", "text", "response", "correction", "expected", "value")
"""Fields of a correction that hold the answer as it should have been, the surest first."""


def _object(value: Any) -> Row:
    return as_object(body_of(value))


def _talk(what: str, given: list[Any] | None, outputs: Any) -> list[Any]:
    """Return the messages of a request and of its response.

    Raises:
        Passed: there is no response.
        InputError: the messages of one of them can't be found.
    """
    if given is None:
        raise InputError(f"the {what} has no messages that can be found")
    if not outputs:
        raise Passed("no_answer")
    answer = said(outputs)
    if answer is None:
        raise InputError(f"the {what} has no answer that can be found")
    return [*given, *answer]


# -- LangSmith -------------------------------------------------------------------------------------


def _is_langsmith_feedback(row: Row) -> bool:
    known = {"messages", "inputs", "feedback", "format"} & row.keys()
    return bool({"run_id", "trace_id"} & row.keys()) and "key" in row and not known


def _langsmith(row: Row) -> Iterable[Found]:
    if _is_langsmith_feedback(row):
        yield _langsmith_feedback(row)
    elif "run_type" in row:
        if _object(row.get("feedback_stats")):  # sums of feedback that has rows of its own
            yield Passed("feedback_summary")
        yield _run(row)
    else:
        yield _example(row)


def _root(row: Row) -> str | None:
    """The id of a trace's root that is no model run and has a question and an answer."""
    whole = row.get("id") and (row.get("is_root") is True or row.get("trace_id") == row["id"])
    if not whole or row.get("run_type") != "chain":
        return None
    return str(row["id"]) if asked(row.get("inputs")) and said(row.get("outputs")) else None


def _roots(rows: Sequence[Row]) -> Iterable[Found]:
    """Read a root as an answer; whoever imports keeps it where the trace has no model run."""
    yield _run({"trace_id": rows[-1]["id"], **rows[-1], "run_type": "llm"})


def _run(row: Row) -> Chat:
    if row["run_type"] not in ("llm", "chat_model"):
        raise Passed("not_a_model_run")
    inputs, outputs = body_of(row.get("inputs")), body_of(row.get("outputs"))
    if not isinstance(inputs, Mapping):
        raise InputError("the run's 'inputs' must be an object")
    turns = _talk("run", asked(inputs), outputs)
    metadata = _object(_object(row.get("extra")).get("metadata"))
    dated = {"start_time": row.get("start_time")}  # the row's own session_id is the project
    return Chat(
        turns,
        run_id=str(row.get("id") or "") or None,
        root_run_id=str(row["trace_id"]) if row.get("trace_id") else None,
        last_only=True,
        error=str(row.get("error") or "") or cut_off(outputs),
        tags=_own_call(metadata, body_of(row.get("tags"))),
        **about(dated, metadata),
    )


def _own_call(metadata: Row, tags: Any) -> dict[str, str]:
    """The tag of a call that the app made for itself, as the handler would have set it."""
    listed = [t for t in tags if isinstance(t, str)] if isinstance(tags, list) else []
    why = own_call(metadata, listed, None)
    return {"own_call": why} if why else {}


def _example(row: Row) -> Chat:
    """An example of a dataset: its outputs are the answer."""
    given, answer = row["inputs"], row["outputs"]
    turns = _talk(
        "example",
        asked(given) or _only_text(given, "user"),
        answer if said(answer) else _only_text(answer, "assistant") or answer,
    )
    dated = {"created_at": row.get("created_at")}
    return Chat(turns, id=str(row.get("id") or ""), **about(dated, row.get("metadata")))


def _only_text(value: Any, role: str) -> list[Any] | None:
    texts = [v for v in _object(value).values() if isinstance(v, str) and v.strip()]
    return [{"role": role, "content": texts[0]}] if len(texts) == 1 else None


def _langsmith_feedback(row: Row) -> Feedback:
    source = _object(row.get("feedback_source"))
    comment, correction = row.get("comment"), row.get("correction")
    if isinstance(correction, Mapping):
        edit = _edit(correction)
        if edit is None and correction:  # kept as words: nobody can tell which of them is the edit
            text = json.dumps(correction, ensure_ascii=False)
            comment = f"{comment}\n\n{text}" if comment else text
        correction = edit
    elif isinstance(correction, list) and len(correction) == 1:
        correction = correction[0]
    score, value = row.get("score"), row.get("value")
    if score is None and isinstance(value, str):
        score = thumb(value)
    return feedback_of(
        first(row, "run_id", "trace_id"),
        row.get("id") or row.get("feedback_id"),
        row.get("created_at"),
        key=row.get("key"),
        score=0.0 if score == -1 else score,
        value=value,
        comment=comment,
        correction=correction,
        source=str(source.get("type") or "langsmith"),
        user_id=str(source["user_id"]) if source.get("user_id") else None,
    )


def _edit(correction: Row) -> str | None:
    """The answer in a correction: its only field, else a field named like an answer."""
    texts = {k: v for k, v in correction.items() if isinstance(v, str) and v.strip()}
    if len(texts) == len(correction) == 1:
        return next(iter(texts.values()))
    named = next((texts[k] for k in _ANSWERS if k in texts), None)
    if named is not None:
        return named
    found = said(correction)
    if not found and len(correction) == 1:  # {"outputs": {"output": ...}}
        return _edit(_object(next(iter(correction.values()))))
    return text_of(found[-1].get("content"), "assistant") or None if found else None


# -- Langfuse --------------------------------------------------------------------------------------

_NAMES = ("userId", "user_id", "sessionId", "session_id")
_TYPES = ("GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR",
          "EMBEDDING", "GUARDRAIL")  # fmt: skip


def _trace(row: Row) -> Any:
    return first(row, "traceId", "trace_id")


def _is_langfuse(row: Row) -> bool:
    if _is_score(row) or _is_trace(row) or {"trace", "observations"} <= row.keys():
        return True
    kind = row.get("type")
    return isinstance(kind, str) and kind.upper() in _TYPES and "input" in row and bool(_trace(row))


def _outermost(row: Row) -> str | None:
    """The trace of an outermost observation that is no model run but has an answer."""
    above = first(row, "parentObservationId", "parent_observation_id") or _is_score(row)
    if above or str(row.get("type")).upper() not in ("SPAN", "AGENT", "CHAIN", "LLM", "UNKNOWN"):
        return None
    whole = row.get("id") and asked(row.get("input")) and said(row.get("output"))
    return str(_trace(row) or row["id"]) if whole else None


def _outer(rows: Sequence[Row]) -> Iterable[Found]:
    for row in {row["id"]: row for row in rows}.values():  # as each was last exported
        yield from _langfuse({**row, "type": "GENERATION"})


def _is_generation(row: Row) -> bool:
    return str(row.get("type")).upper() == "GENERATION"


def _is_trace(row: Row) -> bool:
    named = bool({"sessionId", "session_id", "userId", "user_id"} & row.keys())
    dated = "timestamp" in row or objects(row.get("observations")) or objects(row.get("scores"))
    return named and dated and {"id", "input", "output"} <= row.keys() and "type" not in row


def _is_score(row: Row) -> bool:
    typed = bool({"dataType", "data_type"} & row.keys())
    named = bool({"traceId", "trace_id", "observationId", "observation_id"} & row.keys())
    return "name" in row and "value" in row and named and (typed or "input" not in row)


def _langfuse(row: Row) -> Iterable[Found]:
    if isinstance(row.get("trace"), Mapping) and not _is_score(row):  # as its page downloads one
        row = {**row["trace"], **{k: row.get(k) for k in ("observations", "scores")}}
    if _is_score(row):
        yield _score(row)
        return
    whole = _is_trace(row)
    if whole:
        inner = [
            {"traceId": row["id"], **{k: row[k] for k in _NAMES if k in row}, **one}
            for one in row.get("observations") or ()
            if isinstance(one, Mapping)
        ]
        inner = [one for one in inner if _is_generation(one) and one.get("output")]
        shown = _text(row.get("output"))
        for one in inner:
            same = shown and _text(one.get("output")) == shown
            yield from _langfuse({**one, "names": [str(row["id"])] if same else []})
        for one in row.get("scores") or ():
            if isinstance(one, Mapping):
                yield _score({"traceId": row["id"], **one})
        if inner:
            return
        if not row.get("input"):
            raise Passed("no_question")
    if not whole and not _is_generation(row):
        raise Passed("not_a_model_run")
    turns = _talk("row", asked(row.get("input")), row.get("output"))
    metadata = _object(row.get("metadata"))
    error = cut_off(body_of(row.get("output")))
    if str(row.get("level")).upper() == "ERROR":
        error = str(first(row, "statusMessage", "status_message") or "error")
    yield Chat(
        turns,
        run_id=str(row["id"]) if row.get("id") and not whole else None,
        names=[str(row["id"])] if whole else row.get("names") or (),
        root_run_id=str(row["id"] if whole else _trace(row)),
        last_only=not whole,
        error=error,
        tags=_own_call(metadata, metadata.get("tags")),
        feedback=[*scores_in(row), *_columns(row)],
        **about(row, metadata),
    )


def _text(outputs: Any) -> str:
    """The words of the last message of a response."""
    found = said(outputs) or [{}]
    return text_of(found[-1].get("content"), "assistant").strip()


def _columns(row: Row) -> list[Row]:
    """The people's scores of a table that its page exports: a column a name, a list of values."""
    return [
        {"name": name, "value": one}
        for name in row
        if name.replace("-", "_") in (*RATINGS, *FEEDBACK) and isinstance(row[name], list)
        for one in row[name]
        if isinstance(one, str | int | float)
    ]


def _score(row: Row) -> Found:
    about = first(row, "observationId", "observation_id") or _trace(row)
    if not about:
        return Passed("score_of_a_session")
    value = row.get("value")
    text = first(row, "stringValue", "string_value", "longStringValue", "long_string_value")
    kind = str(first(row, "dataType", "data_type") or "NUMERIC").upper()
    comment = row.get("comment")
    fields: dict[str, Any] = {}
    if kind == "CORRECTION":
        fields["correction"] = text
    elif kind == "TEXT":
        comment = "\n\n".join(str(t) for t in (text, comment) if t)
    elif kind == "CATEGORICAL" or (value is None and text is not None):
        fields["value"] = text if text is not None else value
        fields["score"] = thumb(text) if isinstance(text, str) else None
    elif value is not None:
        fields["score"] = number(value)
        if fields["score"] is None:
            raise InputError(f"the score's value {str(value)[:40]!r} is no number")
    return feedback_of(
        str(about),
        row.get("id"),
        first(row, "timestamp", "createdAt", "created_at"),
        key=str(row["name"]),
        comment=comment or None,
        source=str(row.get("source") or "langfuse"),
        user_id=first(row, "authorUserId", "author_user_id"),
        **fields,
    )


# -- spans of OpenTelemetry ------------------------------------------------------------------------

_WRAPPED = {"message", "message_content", "tool_call"}
"""OpenInference puts each thing of a list into an object of this one field."""


_MAX_DOTS = 32
"""A name with more is no path."""


def _tree(value: Any) -> Any:
    """Return attributes by their parts: ``llm.input_messages.0.message.role`` and the like.

    A value of a name that others go on from stands under "".
    """
    if isinstance(value, list):
        return [_tree(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    out: dict[str, Any] = {}
    for name, one in value.items():
        name = name.removeprefix("attributes.")
        *above, last = name.split(".") if name.count(".") <= _MAX_DOTS else [name]
        at = out
        for part in above:
            inner = at.setdefault(part, {})
            if not isinstance(inner, dict):
                at[part] = inner = {"": inner}
            at = inner
        there = at.get(last)
        if isinstance(there, dict):
            there.update(one if isinstance(one, Mapping) else {"": one})
        else:
            at[last] = dict(one) if isinstance(one, Mapping) else one
    if len(out) == 1 and out.keys() <= _WRAPPED:
        return _tree(next(iter(out.values())))
    if out and all(name.isdecimal() for name in out):
        return [_tree(out[name]) for name in sorted(out, key=int)]
    return {name: _tree(one) for name, one in out.items()}


def _attributes(row: Row) -> Row:
    given = body_of(row.get("attributes"))
    columns = {k: row[k] for k in row if k.startswith("attributes.")}
    return _object(_tree(given if isinstance(given, Mapping) else columns))


def _span(row: Row) -> Iterable[Found]:
    """Read a span as Langfuse's observation, an annotation as LangSmith's feedback."""
    if "annotator_kind" in row:
        ids = _ids(row)
        told = {**ids, **_object(ids.get("result"))}
        who = {"type": row["annotator_kind"], "user_id": told.get("identifier")}
        yield _langsmith_feedback(
            {
                **told,
                "run_id": first(ids, "span_id", "trace_id"),
                "feedback_source": who,
                "key": first(told, "name", "annotation_name"),
                "value": told.get("label"),
                "comment": told.get("explanation"),
            }
        )
        return
    yield from _langfuse(_observation(row))


def _ids(row: Row) -> dict[str, Any]:
    told = _tree({**row, "attributes": {}, **_object(row.get("context"))})
    return {**told, **_object(told.get("context"))}


def _observation(row: Row) -> Row:
    """A span as Langfuse has it; an annotation is none."""
    if "annotator_kind" in row:
        return {}
    inner, ids = _attributes(row), _ids(row)
    llm, gen_ai, ai = (_object(inner.get(name)) for name in ("llm", "gen_ai", "ai"))
    given = llm.get("input_messages") or _object(gen_ai.get("input")).get("messages")
    given = given or gen_ai.get("prompt") or _object(ai.get("prompt")).get("messages")
    answer = llm.get("output_messages") or _object(gen_ai.get("output")).get("messages")
    answer = answer or gen_ai.get("completion")
    if not answer and (made := _object(ai.get("response"))):  # the AI SDK's
        answer = {"content": made.get("text"), "finish_reason": made.get("finishReason")}
    if system := gen_ai.get("system_instructions"):
        given = {"messages": given, "system": body_of(system)}
    whole = [_object(inner.get(name)).get("value") for name in ("input", "output")]
    thread = {**_object(gen_ai.get("conversation")), **_object(inner.get("session"))}
    kind = _object(_object(inner.get("openinference")).get("span")).get("kind")
    return {
        "type": "GENERATION" if given else kind or "SPAN",
        "input": given or whole[0],
        "output": answer if given else whole[1],
        "parentObservationId": first(row, "parent_id", "parentSpanId", "parent_span_id"),
        "metadata": _object(ai.get("telemetry")).get("metadata")
        or _object(_object(inner.get("traceloop")).get("association")).get("properties"),
        "model": llm.get("model_name") or _object(gen_ai.get("request")).get("model"),
        "id": first(ids, "span_id", "spanId"),
        "traceId": first(ids, "trace_id", "traceId") or "",
        "level": row.get("status_code"),
        "statusMessage": row.get("status_message"),
        "startTime": first(row, "start_time", "startTime"),
        "userId": _object(inner.get("user")).get("id"),
        "sessionId": thread.get("id"),
    }


def _is_span(row: Row) -> bool:
    if "annotator_kind" in row or not any(k.startswith("attributes") for k in row):
        return "annotator_kind" in row
    return bool({"llm", "gen_ai", "openinference"} & _attributes(row).keys())


# -- requests and responses ------------------------------------------------------------------------

_REQUEST = ("request", "request_body", "requestBody", "req", "body", "kwargs", "input", "inputs",
            "prompt", "messages", "contents", "proxy_server_request")  # fmt: skip
_RESPONSE = ("response", "response_body", "responseBody", "res", "output", "outputs", "completion",
             "choices", "candidates", "message", "answer", "reply")  # fmt: skip


_REDACTED = "redacted-by-litellm"


def _is_request(row: Row) -> bool:
    whole = any(k in row for k in _REQUEST[:5]) and any(k in row for k in _RESPONSE)
    beside = any(k in row for k in _REQUEST[5:]) and any(row.get(k) for k in _RESPONSE)
    return whole or (beside and not _is_finished(row.get("messages")))


def _is_finished(messages: Any) -> bool:
    """Whether a conversation ends with its answer: what stands beside it is something else."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and str(last.get("role", "")).lower() == "assistant"


def _is_litellm(row: Row) -> bool:
    return "messages" in row and "response" in row and bool({"call_type", "startTime"} & row.keys())


def _request(row: Row) -> Iterable[Found]:
    whole = [row, *(row[k] for k in _REQUEST if row.get(k))]
    given = next(filter(None, map(asked, whole)), None)
    answer = next((m for k in _RESPONSE if row.get(k) and (m := said(row[k]))), None)
    if given is None:
        raise InputError("the request has no messages that can be found")
    status = str(first(row, "status", "response_status", "status_code", "statusCode", "is_success"))
    failed = status.lower() in ("failure", "error", "failed", "false")
    failed = failed or (status.isdecimal() and 400 <= int(status) < 600)
    if answer is None:
        if failed:
            raise Passed("failed_request")
        if not any(row.get(k) for k in _RESPONSE):
            raise Passed("no_answer")
        if any(_object(row.get(k)).get("error") for k in _RESPONSE):
            raise Passed("failed_request")
        raise InputError("the response has no answer that can be found")
    request = next((o for k in _REQUEST[:6] if (o := _object(row.get(k)))), {})
    response = next((o for k in _RESPONSE[:4] if (o := _object(row.get(k)))), {})
    metadata = _object(row.get("metadata"))
    more = _object(request.get("metadata")), _object(row.get("trace_metadata"))
    told = about(row, metadata, response, request, *more)
    told["user"] = told["user"] or first(
        {**request, **metadata, **row},
        "user_api_key_end_user_id",
        "user_api_key_user_id",
        "request_user_id",
        "_user",
    )
    last = _object(given[-1]).get("content")
    if last and last == answer[-1].get("content") and read_all(given[-1:])[-1].role == "assistant":
        answer = []  # the log's messages have the answer already
    if any(m.get("content") == _REDACTED for m in (*given, *answer) if isinstance(m, Mapping)):
        raise Passed("redacted")
    run_id = first(row, "id", "request_id", "requestId") or response.get("id")
    before = first({**response, **request, **row}, "previous_response_id")
    if before and run_id and (turn := user_turn(read_all(given))):
        # OpenAI's Responses name the answer that the user goes on from, and leave the turns out.
        yield feedback_of(
            str(before),
            f"follow-up-{run_ref(str(run_id))}",
            None,
            key=FOLLOW_UP,
            comment=turn,
            source="thread",
            user_id=told["user"],
        )
    name = str(response.get("id") or 0)  # LiteLLM's "chatcmpl-9f_cache_hit17" is another run
    ends = (*map(cut_off, (row, *(body_of(row.get(k)) for k in _RESPONSE))), incomplete(status))
    told["created_at"] = told["created_at"] or response.get("created")
    told["model"] = told["model"] or first(_object(row.get("inputs")), "model")
    yield Chat(
        [*given, *answer],
        run_id=run_id,
        names=() if name.isdecimal() or str(run_id).startswith(name) else [run_ref(name)],
        feedback=[*feedback_in(row), *scores_in(row)],
        error="the request failed" if failed else next(filter(None, ends), None),
        **told,
    )


LANGSMITH = Reader(
    "langsmith",
    lambda row: (
        _is_langsmith_feedback(row)
        or ("run_type" in row and "inputs" in row)
        or ("outputs" in row and isinstance(row.get("inputs"), Mapping))
    ),
    _langsmith,
    _root,
    _roots,
)
SPANS = Reader(
    "spans",
    _is_span,
    _span,
    lambda row: _outermost(_observation(row)),
    lambda rows: _outer([_observation(row) for row in rows]),
)
LANGFUSE = Reader("langfuse", _is_langfuse, _langfuse, _outermost, _outer)
LITELLM = Reader("litellm", _is_litellm, _request)
REQUESTS = Reader("requests", _is_request, _request)
