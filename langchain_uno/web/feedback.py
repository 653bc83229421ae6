"""Feedback over HTTP: a FastAPI router, for thumbs sent by browsers without credentials.

    handler = UNOFeedbackHandler(home="~/uno")
    router = feedback_router(handler, secret=os.environ["LANGCHAIN_UNO_FEEDBACK_SECRET"])
    app.include_router(router)
    token = router.tokens.sign(answer.id)        # goes to the browser together with the answer

    fetch("/feedback", {method: "POST", headers: {Authorization: `Bearer ${token}`}, body: ...})

A token is signed, expires, and is good for one run of one namespace, for one user and some keys if
it says so. Whoever has one may press thumbs again and again: of one key, the last press counts.
``{"key": "thumb"}`` alone takes the thumb back (``like``, ``dislike``, ``copy`` and ``regenerate``
say something by themselves). Words without a score replace no press of their key.
Visitors without a login are told apart by a signed cookie (:meth:`FeedbackTokens.visitor`).
Needs the extra ``langchain-uno[server]``.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from secrets import token_urlsafe
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.errors import ConfigError, ForgottenError, InputError, StoreError, UNOError
from langchain_uno.home import safe_name
from langchain_uno.logs.capture import feedback_key
from langchain_uno.logs.conversation import MAX_ID, is_further, run_name, run_ref
from langchain_uno.metrics import exposition
from langchain_uno.records import person, utc_now

try:
    from fastapi import APIRouter, FastAPI, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from fastapi.middleware.cors import CORSMiddleware
    from fastapi.responses import JSONResponse
    from itsdangerous import BadData, URLSafeSerializer
    from limits import RateLimitItem, parse
    from limits.storage import MemoryStorage
    from limits.strategies import MovingWindowRateLimiter

    from langchain_uno.web.bodies import Refused, read_body
except ImportError as error:
    raise ConfigError(
        f"Feedback over HTTP needs a package that is missing ({error.name}): "
        "pip install 'langchain-uno[server]'."
    ) from error

ENV_SECRET = "LANGCHAIN_UNO_FEEDBACK_SECRET"  # noqa: S105 - a variable's name
_MIN_SECRET = 32
_COOKIE = "langchain-uno-visitor"
_COOKIE_S = 365 * 24 * 3600
_MAX_TOKEN = 2000
_MAX_TEXT = 20_000
_MAX_NUMBER = 2**53
"""Beyond it whole numbers are no longer exact in browsers."""
_EXPECTED = (
    "Say something: a score from 0 to 1, a comment, a correction or a key (a short name); a value "
    "(a finite scalar) stands beside a key."
)


class TokenError(UNOError, PermissionError):
    """A token is forged, malformed, expired, or of another namespace."""

    exit_code = 2


@dataclass(frozen=True)
class Claims:
    """What a token is good for."""

    run_id: str
    user_id: str | None = None
    keys: tuple[str, ...] | None = None
    """The feedback keys allowed; None: any."""


class FeedbackTokens:
    """Signs and verifies tokens (HMAC-SHA256 by itsdangerous).

    Args:
        secret: at least 32 characters; several to rotate: the first signs, all are accepted. None:
            ``LANGCHAIN_UNO_FEEDBACK_SECRET`` (commas between several). Never stored or logged.

    Raises:
        ConfigError: no secret, or one that is too short.
    """

    def __init__(self, secret: str | Sequence[str] | None = None) -> None:
        given = secret if secret is not None else os.environ.get(ENV_SECRET, "").split(",")
        secrets = [given] if isinstance(given, str) else [s.strip() for s in given]
        if not secrets or any(len(s.encode()) < _MIN_SECRET for s in secrets):
            raise ConfigError(
                f"Signing feedback tokens needs a secret of at least {_MIN_SECRET} characters: set "
                f"{ENV_SECRET} (python -c 'import secrets; print(secrets.token_urlsafe(32))')."
            )
        self._serializer, self._visitors = (
            URLSafeSerializer(
                list(reversed(secrets)),  # itsdangerous signs with the last
                salt=f"langchain-uno-{purpose}-1",
                signer_kwargs={"key_derivation": "hmac", "digest_method": sha256},
            )
            for purpose in ("feedback", "visitor")
        )

    def sign(
        self,
        run_id: object,
        *,
        user_id: str | int | UUID | None = None,
        ttl_s: float = 3 * 3600,
        keys: Sequence[str] | None = None,
        namespace: str = "default",
    ) -> str:
        """Return a token for one run, safe in URLs.

        Args:
            run_id: the model run's id, the root run id, the message or its ``AIMessage.id``.
            user_id: who it is for; stored with the feedback.
            ttl_s: seconds until it expires.
            keys: feedback keys that it allows (``["like", "dislike"]``); None: any. A comment
                needs ``"comment"`` among them and a correction ``"correction"``.
            namespace: of the handler that will take it.

        Raises:
            InputError: no run id, a time that is not positive, keys that are one text, or a user id
                that no feedback takes.
        """
        named = run_id.id if isinstance(run_id, BaseMessage) else run_id
        reference = run_ref("" if named is None else named)
        if not reference or is_further(named) or not ttl_s > 0:
            raise InputError("A token needs a run id and a time to live above 0 seconds.")
        who = person(str(user_id)) if user_id is not None else None
        if isinstance(keys, str) or {*map(type, keys or ())} - {str} or len(who or "") > MAX_ID:
            raise InputError(
                f"A token needs keys as a list, and a user id of {MAX_ID} characters at most."
            )
        claims = [
            reference,
            safe_name(namespace, "namespace"),
            round(time.time() + ttl_s, 3),
            who,
            list(keys) if keys is not None else None,
        ]
        return str(self._serializer.dumps(claims))

    def visitor(self, request: Request, response: Response) -> str:
        """Return an anonymous visitor's name, for ``user_id``; a new one gets a cookie with it.

        The server makes the name and signs it: one browser is one voice, and nobody can take the
        name of another. Whoever deletes cookies is somebody new, so such names are cheap:
        ``rules.min_users`` is the guard.

        Args:
            request: its cookie is read.
            response: what the request is answered with; a new visitor's cookie is set on it.
        """
        try:
            return str(self._visitors.loads(request.cookies.get(_COOKIE, "")))
        except BadData:
            name = f"visitor-{token_urlsafe(12)}"
        response.set_cookie(
            _COOKIE,
            str(self._visitors.dumps(name)),
            max_age=_COOKIE_S,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return name

    def verify(self, token: str, *, namespace: str = "default") -> Claims:
        """Return what a token is good for.

        Raises:
            TokenError: it is not ours, was changed, has expired, or is of another namespace.
        """
        if not token or len(token) > _MAX_TOKEN or not token.isascii():
            raise TokenError("The token is malformed.")
        try:
            run_id, of, expires, user_id, keys = self._serializer.loads(token)
        except (BadData, ValueError, TypeError) as error:
            raise TokenError("The token is not valid.") from error
        if of != namespace:
            raise TokenError("The token is of another namespace.")
        if time.time() > float(expires):
            raise TokenError("The token has expired: ask for a new one.")
        return Claims(run_id, user_id, tuple(keys) if keys is not None else None)


class _Body(BaseModel):
    """The body; the names are LangSmith's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: str | None = None
    run_id: str | None = Field(default=None, max_length=200)
    """Not needed; when given, it must be the token's."""
    key: str | None = Field(default=None, min_length=1, max_length=200)
    score: bool | int | float | None = None
    value: str | bool | int | float | None = None
    comment: str | None = Field(default=None, max_length=_MAX_TEXT)
    correction: str | None = Field(default=None, max_length=200_000)
    feedback_id: str | None = Field(default=None, min_length=1, max_length=200)

    @field_validator("value", mode="before")
    @classmethod
    def _is_exact(cls, value: Any) -> Any:
        if isinstance(value, int) and abs(value) > _MAX_NUMBER:
            raise ValueError("a whole number beyond 2**53")
        return value


class FeedbackRouter(APIRouter):
    """An ``APIRouter`` with its ``tokens`` and ``counts`` of responses (by error or status).

    Made by :func:`feedback_router`.
    """

    tokens: FeedbackTokens
    counts: Counter[str]


def feedback_router(
    handler: UNOFeedbackHandler,
    *,
    secret: str | Sequence[str] | None = None,
    prefix: str = "/feedback",
    max_body: int = 65_536,
    rate: str = "30/minute",
    client_rate: str = "300/minute",
) -> FeedbackRouter:
    """Return the router: ``POST {prefix}`` records, ``GET {prefix}/health`` says that it is there.

    The body is JSON with any of ``score``, ``value``, ``comment``, ``correction``, ``key`` and
    ``feedback_id``; the token stands in the ``Authorization`` header or in the body (for
    ``navigator.sendBeacon``, which sends ``text/plain``). Errors are
    ``{"error": ..., "detail": ...}`` and repeat nothing of the body: 400 malformed, 401 token, 403
    key or run not allowed, 408 too slow, 410 the answer was forgotten, 413 too large, 415 not JSON,
    422 nonsense, 429 too fast, 503 the journal can't be written. ``status`` in the answer is
    ``recorded``, or ``outdated`` where what stands under this ``feedback_id`` is younger.

    Args:
        handler: its home and namespace take the feedback.
        secret: see :class:`FeedbackTokens`.
        prefix: of the paths.
        max_body: bytes of a body; more is refused while it comes in.
        rate: how often one token may be used (the form is that of the ``limits`` package).
        client_rate: how often one client address may call, with whatever token. Behind a proxy, let
            the server set the address (uvicorn's ``--proxy-headers``).

    Raises:
        ConfigError: no secret, or a rate that can't be read.
    """
    tokens, counts = FeedbackTokens(secret), Counter[str]()
    try:
        per_token, per_client = parse(rate), parse(client_rate)
    except ValueError as error:
        raise ConfigError(f"A rate can't be read ({error}): write it as '30/minute'.") from error
    limiter = MovingWindowRateLimiter(MemoryStorage())
    namespace = handler.home.namespace

    def limit(item: RateLimitItem, *who: str) -> None:
        if not limiter.hit(item, *who):
            wait = max(1, round(limiter.get_window_stats(item, *who).reset_time - time.time()))
            raise Refused(429, "too_many", "Slow down.", Retry_After=str(wait))

    async def record(request: Request) -> dict[str, str]:
        limit(per_client, "client", request.client.host if request.client else "unknown")
        body = await read_body(request, max_body)
        said = _parse(body, request.headers.get("content-type", ""))
        token = _bearer(request) or said.token
        if token is None:
            raise Refused(401, "no_token", "Send the token as Authorization: Bearer TOKEN.")
        try:
            claims = tokens.verify(token, namespace=namespace)
        except TokenError as error:
            raise Refused(401, "bad_token", str(error)) from error
        limit(per_token, "token", blake2b(token.encode(), digest_size=16).hexdigest())
        fields = _fields(said, claims)
        try:
            done = await run_in_threadpool(handler.feedback, claims.run_id, **fields)
        except ForgottenError as error:
            raise Refused(410, "forgotten", "This answer was forgotten: rate no more.") from error
        except InputError as error:
            raise Refused(422, "bad_value", _EXPECTED) from error
        except StoreError as error:
            raise Refused(503, "store", "Try again soon.", Retry_After="5") from error
        # What stands may be younger by the clock of another host: the handler gives it back then.
        status = "outdated" if done.created_at > utc_now() else "recorded"
        return {"status": status, "feedback_id": done.feedback_id, "key": done.key}

    async def answer(request: Request) -> JSONResponse:
        try:
            told = await record(request)
        except Refused as refused:
            counts[refused.error] += 1
            content = {"error": refused.error, "detail": refused.detail}
            return JSONResponse(content, refused.status, headers=refused.headers)
        counts[told["status"]] += 1
        return JSONResponse(told)

    async def health() -> dict[str, str]:
        return {"status": "ok"}

    router = FeedbackRouter(prefix=prefix, tags=["feedback"])
    router.tokens, router.counts = tokens, counts
    router.add_api_route("", answer, methods=["POST"], summary="Record feedback on one answer")
    router.add_api_route("/health", health, methods=["GET"], summary="Whether it is there")
    return router


def feedback_app(
    home: str | os.PathLike[str] | None = None,
    namespace: str = "default",
    *,
    cors_origins: Sequence[str] = (),
    metrics: bool = False,
    **settings: Any,
) -> FastAPI:
    """Return a whole app with nothing but the router (for the LangGraph server's ``http.app``).

    Args:
        home: the home folder; None: ``LANGCHAIN_UNO_HOME``.
        namespace: the tenant.
        cors_origins: pages that may send feedback, ``["https://shop.example"]``; none by default.
        metrics: whether ``GET /metrics`` tells Prometheus the figures of this process and of the
            last refresh. Let the proxy keep it from the world.
        settings: those of :func:`feedback_router`.

    Raises:
        ConfigError, InputError, HomeError, StoreError: see the handler and the router.
    """
    handler = UNOFeedbackHandler(home=home, namespace=namespace)
    app = FastAPI(title="UNO feedback", docs_url=None, redoc_url=None, openapi_url=None)
    router = feedback_router(handler, **settings)
    app.include_router(router)
    app.state.uno_handler, app.state.uno_router = handler, router
    if metrics:

        def page() -> Response:
            return Response(exposition(handler.home), media_type="text/plain")

        page()  # says at once what is missing
        app.add_api_route("/metrics", page, methods=["GET"])
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["POST"],
            allow_headers=["authorization", "content-type"],
        )
    return app


def _parse(body: bytes, kind: str) -> _Body:
    if kind.split(";")[0].strip().lower() not in ("application/json", "text/plain"):
        raise Refused(415, "not_json", "Send JSON (application/json, or text/plain by a beacon).")
    try:
        return _Body.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_input=False, include_context=False)
        if found[0]["type"] in ("json_invalid", "model_type"):
            raise Refused(400, "malformed", "The body is not a JSON object in UTF-8.") from error
        names = {str(e["loc"][0]) for e in found} & set(_Body.model_fields)
        odd = ", ".join(sorted(names)) or "an unknown field"
        raise Refused(422, "bad_value", f"Not usable: {odd}.") from error


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _fields(said: _Body, claims: Claims) -> dict[str, Any]:
    """Return the handler's arguments; refuse what the token does not allow."""
    if said.run_id is not None and run_name(said.run_id) != run_name(claims.run_id):
        raise Refused(403, "other_run", "The token is for another run.")
    told = {"key", "score", "value", "comment", "correction"}
    fields = said.model_dump(include=told, exclude_none=True)
    # Pages send the fields of a form that were left empty, too.
    fields = {k: v for k, v in fields.items() if not isinstance(v, str) or v.strip()}
    key, words = feedback_key(fields) or "", {"comment", "correction"} & fields.keys()
    # One person's words may teach, one person's thumb does not: words need a key of their own.
    if fields and claims.keys is not None and not {key, *words} <= set(claims.keys):
        raise Refused(403, "key_not_allowed", f"The token allows: {', '.join(claims.keys)}.")
    # Nobody can name another's feedback: ids are made of the run, the user and the key; a name that
    # the page gives is its own for what its token allows. Words alone replace no press of a key.
    name = f"key:{key}"
    if words and key not in words and not {"score", "value"} & fields.keys():
        name += "/words"
    if said.feedback_id:
        allowed = sorted(claims.keys) if claims.keys is not None else None
        name = json.dumps(["id", allowed, said.feedback_id])
    parts = "\0".join((claims.run_id, claims.user_id or "", name))
    digest = blake2b(parts.encode(), digest_size=16).hexdigest()
    return {**fields, "user_id": claims.user_id, "feedback_id": f"http-{digest}", "source": "http"}
