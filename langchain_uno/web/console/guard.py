"""The guard before every page and action: who asks, whether they may, whose form it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import urlencode

from fastapi.concurrency import run_in_threadpool
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from langchain_uno.errors import InputError, ReleaseError, UNOError
from langchain_uno.web.console import access
from langchain_uno.web.console.views import environment

_STATIC = {"console.css": "text/css", "htmx.min.js": "text/javascript"}
_MOST_WHY = 500
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # without a referrer, browsers name no origin with a form
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class Visit:
    """One request of somebody who was let in."""

    session: access.Session
    base: str
    """What the console's paths begin with here."""
    path: dict[str, str]
    query: dict[str, str]
    form: dict[str, str]

    @property
    def who(self) -> str:
        """The operator's name."""
        return self.session.operator.name

    def said(self, name: str) -> str:
        """Return a field of the form, stripped; "" where it is missing."""
        return self.form.get(name, "").replace("\r\n", "\n").strip()

    @property
    def page(self) -> int:
        """The number of the page asked for, from 1."""
        given = self.query.get("page", "1")
        return max(1, int(given)) if given.isdecimal() and len(given) < 9 else 1


Handler = Callable[[Visit], Response]


class Guard:
    """Lets operators in, and seals what goes out.

    Args:
        operators: who may come in.
    """

    def __init__(self, operators: Sequence[access.Operator]) -> None:
        self._access = access.Access(operators)
        self._templates = environment()

    def guarded(
        self, prefix: str, need: access.Role, handler: Handler, pool: Executor | None = None
    ) -> Callable[[Request], Any]:
        """Put the checks before a page: who asks, whether they may, whose form it is."""

        async def endpoint(request: Request) -> Response:
            base = request.scope.get("root_path", "") + prefix
            session = None
            try:
                if request.method == "POST":
                    access.check_same_site(request)
                session = self._access.session(request)
                form: dict[str, str] = {}
                if request.method == "POST":
                    form = await access.read_form(request)
                    access.check_form(session, form.get("csrf", ""))
                    if len(form.get("why", "")) > _MOST_WHY:
                        raise InputError(f"Give the reason in {_MOST_WHY} characters.")
                if not session.operator.may(need):
                    raise access.Refused(
                        403,
                        f"This needs the role {need}; {session.operator.name} has the role "
                        f"{session.operator.role}.",
                    )
                visit = Visit(
                    session, base, dict(request.path_params), dict(request.query_params), form
                )
                if pool is not None:
                    loop = asyncio.get_running_loop()
                    response = await loop.run_in_executor(pool, handler, visit)
                else:
                    response = await run_in_threadpool(handler, visit)
            except Exception as error:  # noqa: BLE001 - what is no refusal is logged
                response = self._refusal(request, base, session, _refused(error))
            return _sealed(response)

        return endpoint

    def _refusal(
        self,
        request: Request,
        base: str,
        session: access.Session | None,
        refused: access.Refused,
        after: str | None = None,
    ) -> Response:
        """Return the page that says why not; without a session, with a form for the token.

        That leads to ``after``; None: to what was asked for.
        """
        if after is None and request.method != "POST":
            after = request.url.path + f"?{request.url.query}" * bool(request.url.query)
        html = self._templates.get_template("refused.html").render(
            base=base,
            session=session,
            csrf=session.csrf if session else "",
            status=refused.status,
            after=after or "",
            htmx="hx-request" in request.headers,
            looked=request.method != "POST",
            reason=refused.reason,
            here="",
        )
        # htmx shows the reason alone, above the page: what was typed there stays.
        swap = {"HX-Retarget": "#told", "HX-Reselect": "[role=alert]", "HX-Reswap": "innerHTML"}
        return HTMLResponse(html, refused.status, headers=swap)

    def enter(self, prefix: str) -> Callable[[Request], Any]:
        """Return the endpoint that exchanges a token for a session."""

        async def enter(request: Request) -> Response:
            base = request.scope.get("root_path", "") + prefix
            given: dict[str, str] = {}
            try:
                if request.method == "POST":
                    access.check_same_site(request)
                    given = await access.read_form(request)
                else:
                    given = dict(request.query_params)
                token = given.get("token", "")
                response: Response = RedirectResponse(
                    access.checked_next(given.get("next", ""), base), 303
                )
                self._access.enter(request, response, token, base or "/")
            except access.Refused as refused:
                response = self._refusal(request, base, None, refused, given.get("next", ""))
            return _sealed(response)

        return enter

    def root(self, prefix: str) -> Callable[[Request], Any]:
        """Return the endpoint of the prefix itself."""

        async def root(request: Request) -> Response:
            return _sealed(RedirectResponse(request.scope.get("root_path", "") + prefix + "/", 307))

        return root

    async def static(self, request: Request) -> Response:
        """Return the stylesheet or htmx; they say nothing of anybody and need no session."""
        name = request.path_params["name"]
        if name not in _STATIC:
            return _sealed(Response(status_code=404))
        data = (resources.files(__package__) / "static" / name).read_bytes()
        response = _sealed(Response(data, media_type=_STATIC[name]))
        response.headers["Cache-Control"] = "max-age=3600"
        return response

    def page(self, visit: Visit, template: str, **values: Any) -> Response:
        """Return a page; every text in it is escaped and made visible."""
        html = self._templates.get_template(template).render(
            base=visit.base,
            session=visit.session,
            csrf=visit.session.csrf,
            may=visit.session.operator.may,
            here=template.partition(".")[0],
            said=self._access.message(visit.session, visit.query.get("said", "")),
            query=visit.query,
            **values,
        )
        return HTMLResponse(html)

    def go(self, visit: Visit, path: str, said: str = "") -> Response:
        """Return a redirect to a page that says what was done."""
        signed = self._access.sign_message(visit.session, said) if said else ""
        path, _, query = path.partition("?")
        query, _, place = query.partition("#")
        parts = [query] * bool(query) + [urlencode({"said": signed})] * bool(signed)
        where = f"{visit.base}{path}" + "?" * bool(parts) + "&".join(parts)
        return RedirectResponse(where + f"#{place}" * bool(place), 303)


def _sealed(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _refused(error: Exception) -> access.Refused:
    """Return what a visitor is told of an error."""
    if isinstance(error, access.Refused):
        return error
    for kind, status in ((InputError, 422), (ReleaseError, 409), (UNOError, 503)):
        if isinstance(error, kind):
            return access.Refused(status, str(error))
    logging.getLogger(__name__).error("A page of the console failed.", exc_info=error)
    return access.Refused(500, "The console made an error; its log says which.")
