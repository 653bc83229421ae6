"""Who may see and do what in the console: tokens, roles, sessions, and what a form must carry.

A token is exchanged for a session: a signed cookie that no script can read, and that comes from
another site's page with a link alone, never with a form. Nothing is kept on the server. Every form
carries a word that only its session knows, and a post from another site is refused before it is
read.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, get_args
from urllib.parse import parse_qsl

from fastapi.requests import Request
from fastapi.responses import Response
from itsdangerous import BadData, URLSafeTimedSerializer

from langchain_uno.errors import ConfigError
from langchain_uno.releases.history import present_user
from langchain_uno.web import bodies

_log = logging.getLogger(__name__)
ENV_TOKENS = "LANGCHAIN_UNO_CONSOLE_TOKENS"
Role = Literal["read", "review", "release"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""
_MIN_TOKEN = 20
SESSION_S = 12 * 3600
"""How long a session lasts."""
_SAID_S = 60
_MOST_FORM = 2 << 20
_MOST_FIELDS = 100


class Refused(Exception):
    """A request that gets a page with a reason instead of what it asked for."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Operator:
    """Who uses the console."""

    name: str
    """The history calls them so."""
    role: Role
    token: str = field(repr=False)

    def may(self, role: Role) -> bool:
        """Whether this role is among what the operator may do."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True)
class Session:
    """One browser of one operator."""

    operator: Operator
    id: str
    csrf: str
    """What each of its forms carries."""


def read_tokens(text: str) -> list[Operator]:
    """Read ``"name:role:token,..."``, as ``LANGCHAIN_UNO_CONSOLE_TOKENS`` holds it.

    Raises:
        ConfigError: a part has another form, an unknown role, a short token, or a name or token
            stands twice.
    """
    found: list[Operator] = []
    for number, part in enumerate((p for p in text.split(",") if p.strip()), start=1):
        name, role, token = [one.strip() for one in (*part.split(":", 2), "", "")][:3]
        if not name or not name.isprintable() or role not in ROLES:
            raise ConfigError(
                f"Part {number} of {ENV_TOKENS} is not of the form name:role:token, with the role "
                f"{', '.join(ROLES[:-1])} or {ROLES[-1]}."
            )
        if len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable():
            raise ConfigError(
                f"The token of {name!r} in {ENV_TOKENS} needs at least {_MIN_TOKEN} characters of "
                "plain ASCII: python -c 'import secrets; print(secrets.token_urlsafe(32))'."
            )
        found.append(Operator(name, role, token))
    for what in ("name", "token"):
        if len({getattr(one, what) for one in found}) < len(found):
            raise ConfigError(f"A {what} stands twice in {ENV_TOKENS}: give each its own.")
    return found


def local_operator() -> Operator:
    """Return the user of this process with a new token, who may do everything."""
    return Operator(present_user(), "release", secrets.token_urlsafe(32))


class Access:
    """Sessions of a fixed set of operators.

    Args:
        operators: at least one. Their tokens make the key that signs: sessions outlive a restart
            with the same tokens, and end when any of them changes.
    """

    def __init__(self, operators: Sequence[Operator]) -> None:
        self._operators = {one.name: one for one in operators}
        self._key = sha256("\0".join(sorted(o.token for o in operators)).encode()).digest()
        self._serializer = URLSafeTimedSerializer(
            self._key,
            salt="langchain-uno-console-1",
            signer_kwargs={"key_derivation": "hmac", "digest_method": sha256},
        )
        # Ports share their cookies: two consoles of one host must not take each other's.
        self._cookie = f"uno-console-{sha256(self._key).hexdigest()[:8]}"

    def enter(self, request: Request, response: Response, token: str, path: str) -> None:
        """Begin a session: set its cookie on the response.

        Raises:
            Refused: nobody has this token.
        """
        given = token.strip().encode("utf-8", "replace")
        every = self._operators.values()
        known = [one for one in every if hmac.compare_digest(one.token.encode(), given)]
        if not known:
            _log.warning("The console refused a token that nobody has.")
            raise Refused(401, "Nobody has this token.")
        response.set_cookie(
            self._cookie,
            str(self._serializer.dumps([known[0].name, secrets.token_urlsafe(16)])),
            max_age=SESSION_S,
            path=path,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        _log.info("%s entered the console.", known[0].name)

    def leave(self, response: Response, path: str, who: str) -> None:
        """Take the cookie away."""
        _log.info("%s left the console.", who)
        response.delete_cookie(self._cookie, path=path, httponly=True, samesite="lax")

    def session(self, request: Request) -> Session:
        """Return the session that a request belongs to.

        Raises:
            Refused: it has none, or one that has ended.
        """
        try:
            name, sid = self._serializer.loads(
                request.cookies.get(self._cookie, ""), max_age=SESSION_S
            )
            operator = self._operators[name]
        except (BadData, ValueError, TypeError, KeyError) as error:
            raise Refused(401, "Give your token to see the console.") from error
        csrf = hmac.new(self._key, f"csrf\0{sid}".encode(), sha256).hexdigest()
        return Session(operator, sid, csrf)

    def sign_message(self, session: Session, text: str) -> str:
        """Return a message for the next page, safe in a URL; only this session will believe it."""
        return str(self._serializer.dumps([session.id, text]))

    def message(self, session: Session, signed: str, seconds: int = _SAID_S) -> str:
        """Return what :meth:`sign_message` made so long ago at most; "" for anything else."""
        try:
            sid, text = self._serializer.loads(signed, max_age=seconds)
        except (BadData, ValueError, TypeError):
            return ""
        return str(text) if sid == session.id else ""


def check_same_site(request: Request) -> None:
    """Refuse what another site's page sends.

    Raises:
        Refused: the browser says that it comes from elsewhere.
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    elsewhere = origin is not None and origin.partition("://")[2] != request.headers.get("host")
    if site not in ("same-origin", "none") or elsewhere:
        raise Refused(403, "This was sent by a page of another site: nothing was done.")


def checked_next(given: str, base: str) -> str:
    """Return the page to go to after the token, if it is one of the console's; else the first."""
    inside = given.startswith(f"{base}/") and not given.startswith(("//", "/\\"))
    return given if inside and given.isascii() and given.isprintable() else f"{base}/"


def check_form(session: Session, given: str) -> None:
    """Refuse a form that this session was not given.

    Raises:
        Refused: its word is missing or another session's.
    """
    if not hmac.compare_digest(session.csrf.encode(), given.encode("utf-8", "replace")):
        raise Refused(403, "This form is of another session: load the page anew and send it again.")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, which is held to 2 MB; of a name that stands twice, the last.

    Raises:
        Refused: it is larger or too slow, the client hung up, or it is no plain form.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refused(415, "Forms are sent as application/x-www-form-urlencoded.")
    try:
        body = await bodies.read_body(request, _MOST_FORM)
    except bodies.Refused as bad:
        raise Refused(bad.status, bad.detail) from bad
    try:
        fields = parse_qsl(body.decode("utf-8", "replace"), True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Refused(400, f"A form may have {_MOST_FIELDS} fields.") from error
    return dict(fields)
