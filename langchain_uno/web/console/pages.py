"""The console's pages and actions, and the guard that each of them stands behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from langchain_uno import __version__
from langchain_uno.erasure import forget
from langchain_uno.errors import ConfigError, InputError, ReleaseError, UNOError
from langchain_uno.home import Home
from langchain_uno.logs.journal import FILE_NAME, Journal
from langchain_uno.records import STAGES
from langchain_uno.releases.history import hold, let_go, note, read_history
from langchain_uno.releases.publish import make_current, retire, rollback
from langchain_uno.releases.summary import changes_of, shares_of, summary_of
from langchain_uno.web.console.access import (
    ENV_TOKENS,
    Access,
    Operator,
    Refused,
    Role,
    Session,
    check_form,
    check_same_site,
    read_form,
    read_tokens,
)
from langchain_uno.web.console.shelf import Shelf
from langchain_uno.web.console.talk import Talks
from langchain_uno.web.console.views import PAGE, Pager, environment, fits, told

__all__ = ["console_app", "console_router"]

_PACKAGES = (
    "langchain", "langgraph", "langchain-huggingface", "peft", "trl", "transformers", "chromadb",
    "torch",
)  # fmt: skip
_HISTORY = 50
_STATIC = {"console.css": "text/css", "htmx.min.js": "text/javascript"}
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

    session: Session
    base: str
    """What the console's paths begin with here."""
    path: dict[str, str]
    query: dict[str, str]
    form: dict[str, list[str]]

    @property
    def who(self) -> str:
        """The operator's name."""
        return self.session.operator.name

    def said(self, name: str) -> str:
        """Return a field of the form, stripped; "" where it is missing."""
        return (self.form.get(name) or [""])[0].replace("\r\n", "\n").strip()

    @property
    def page(self) -> int:
        """The number of the page asked for, from 1."""
        given = self.query.get("page", "1")
        return max(1, int(given)) if given.isdecimal() and len(given) < 9 else 1


_Handler = Callable[[Visit], Response]


class Console:
    """The pages of one namespace."""

    def __init__(self, home: Home, operators: Sequence[Operator], talks: Talks | None) -> None:
        self.home, self.talks = home, talks
        self.access = Access(operators)
        self.shelf = Shelf(home)
        self._journal = Journal(home.journal, readonly=True)
        self._templates = environment()
        # Answers take long: they must not take the threads that pages need.
        self._asking = ThreadPoolExecutor(2, thread_name_prefix="uno-console")

    def router(self, prefix: str) -> APIRouter:
        """Return the routes."""
        router = APIRouter(prefix=prefix, include_in_schema=False)
        looks: tuple[tuple[str, Role, _Handler], ...] = (
            ("/", "read", self.overview),
            ("/clusters", "read", self.clusters),
            ("/clusters/{cluster}", "read", self.cluster),
            ("/releases", "read", self.releases),
            ("/releases/{release}", "read", self.release),
            ("/diff", "read", self.diff),
            ("/try", "read", self.trial),
            ("/people", "read", self.people),
            ("/forget", "release", self.ask_to_forget),
            ("/health", "read", self.health),
        )
        acts: tuple[tuple[str, Role, _Handler], ...] = (
            ("/releases/{release}/promote", "release", self.promote),
            ("/rollback", "release", self.go_back),
            ("/hold", "release", self.hold),
            ("/hold/end", "release", self.end_hold),
            ("/try/ask", "review", self.ask),
            ("/try/rate", "review", self.rate),
            ("/try/new", "review", self.begin),
            ("/forget", "release", self.forget),
            ("/leave", "read", self.leave),
        )
        for path, need, look in looks:
            router.add_route(path, self._guarded(prefix, need, look), methods=["GET"])
        for path, need, act in acts:
            pool = self._asking if act == self.ask else None
            router.add_route(path, self._guarded(prefix, need, act, pool), methods=["POST"])
        router.add_route("/enter", self._enter(prefix), methods=["GET", "POST"])
        router.add_route("/static/{name}", self._static, methods=["GET"])
        return router

    def close(self) -> None:
        """Close the journal, and what answers."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._journal.close()
        if self.talks:
            self.talks.close()

    # -- the guard ----------------------------------------------------------------------------

    def _guarded(
        self, prefix: str, need: Role, handler: _Handler, pool: ThreadPoolExecutor | None = None
    ) -> Callable[[Request], Any]:
        """Put the checks before a page: who asks, whether they may, whose form it is."""

        async def endpoint(request: Request) -> Response:
            base = request.scope.get("root_path", "") + prefix
            session = None
            try:
                if request.method == "POST":
                    check_same_site(request)
                session = self.access.session(request)
                form: dict[str, list[str]] = {}
                if request.method == "POST":
                    body = await read_form(request)
                    form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
                    check_form(session, (form.get("csrf") or [""])[0])
                if not session.operator.may(need):
                    raise Refused(
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
            except Refused as refused:
                response = self._refusal(request, base, session, refused)
            except UNOError as error:
                response = self._refusal(
                    request, base, session, Refused(_status(error), str(error))
                )
            return _sealed(response)

        return endpoint

    def _refusal(
        self, request: Request, base: str, session: Session | None, refused: Refused
    ) -> Response:
        """Return the page that says why not; without a session, with a form for the token."""
        html = self._templates.get_template("refused.html").render(
            base=base,
            session=session,
            csrf=session.csrf if session else "",
            status=refused.status,
            reason=refused.reason,
            here="",
        )
        # For htmx, which may have asked for a part of a page that is not in this one.
        swap = {"HX-Retarget": "main", "HX-Reselect": "main", "HX-Reswap": "outerHTML"}
        return HTMLResponse(html, refused.status, headers=swap)

    def _enter(self, prefix: str) -> Callable[[Request], Any]:
        async def enter(request: Request) -> Response:
            base = request.scope.get("root_path", "") + prefix
            try:
                if request.method == "POST":
                    check_same_site(request)
                    form = parse_qs((await read_form(request)).decode("utf-8", "replace"))
                    token = (form.get("token") or [""])[0]
                else:
                    token = request.query_params.get("token", "")
                response: Response = RedirectResponse(f"{base}/", 303)
                self.access.enter(request, response, token, base or "/")
            except Refused as refused:
                response = self._refusal(request, base, None, refused)
            return _sealed(response)

        return enter

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return _sealed(Response(status_code=404))
        data = (resources.files(__package__) / "static" / name).read_bytes()
        response = _sealed(Response(data, media_type=_STATIC[name]))
        response.headers["Cache-Control"] = "max-age=3600"
        return response

    def _page(self, visit: Visit, template: str, **values: Any) -> Response:
        """Return a page; every text in it is escaped and made visible."""
        html = self._templates.get_template(template).render(
            base=visit.base,
            session=visit.session,
            csrf=visit.session.csrf,
            may=visit.session.operator.may,
            here=template.partition(".")[0],
            said=self.access.message(visit.session, visit.query.get("said", "")),
            query=visit.query,
            **values,
        )
        return HTMLResponse(html)

    def _go(self, visit: Visit, path: str, said: str = "") -> Response:
        """Return a redirect to a page that says what was done."""
        signed = self.access.sign_message(visit.session, said) if said else ""
        path, _, query = path.partition("?")
        parts = [query] * bool(query) + [urlencode({"said": signed})] * bool(signed)
        return RedirectResponse(f"{visit.base}{path}" + "?" * bool(parts) + "&".join(parts), 303)

    # -- looking ------------------------------------------------------------------------------

    def overview(self, visit: Visit) -> Response:
        """What answers, how much of the traffic it covers, and what waits for a person."""
        found = self._summary()
        return self._page(
            visit, "overview.html", s=found, current=self.shelf.current(), waiting=self._waiting()
        )

    def clusters(self, visit: Visit) -> Response:
        """The clusters of one release, searchable."""
        chosen = visit.query.get("release") or self.shelf.current() or self.shelf.newest()
        query, route = visit.query.get("q", "").strip(), visit.query.get("route", "")
        found = self.shelf.manifest(chosen).clusters if chosen else []
        routes = sorted({cluster.route for cluster in found})
        found = [c for c in found if (not route or c.route == route) and fits(c, query)]
        pager = Pager(visit.page, len(found))
        return self._page(
            visit,
            "clusters.html",
            release=chosen,
            releases=self.shelf.releases(),
            clusters=found[pager.start : pager.end],
            pager=pager,
            q=query,
            route=route,
            routes=routes,
        )

    def cluster(self, visit: Visit) -> Response:
        """One cluster: its rules and the evidence."""
        chosen = visit.query.get("release") or self.shelf.current() or self.shelf.newest()
        manifest = self.shelf.manifest(chosen or "none")
        found = next((c for c in manifest.clusters if c.id == visit.path["cluster"]), None)
        if found is None:
            raise Refused(404, f"Release {chosen} has no cluster {visit.path['cluster']!r}.")
        counts = {
            name: manifest.figures.get(name, {}).get(found.id)
            for name in ("pairs", "train", "verify")
        }
        return self._page(visit, "cluster.html", release=chosen, cluster=found, counts=counts)

    def releases(self, visit: Visit) -> Response:
        """All releases, the newest first, and who changed what."""
        names = self.shelf.releases()[::-1]
        pager = Pager(visit.page, len(names))
        shares = shares_of(self.home)
        rows = [self.shelf.row(n, shares.get(n, 0.0)) for n in names[pager.start : pager.end]]
        history = read_history(self.home)[-_HISTORY:][::-1]
        return self._page(
            visit,
            "releases.html",
            rows=rows,
            pager=pager,
            history=history,
            held=self._summary()["held"],
            current=self.shelf.current(),
            names=names,
        )

    def release(self, visit: Visit) -> Response:
        """One release, and what may be done with it."""
        name = visit.path["release"]
        manifest = self.shelf.manifest(name)
        row = self.shelf.row(name, shares_of(self.home).get(name, 0.0))
        return self._page(visit, "release.html", m=manifest, row=row, current=self.shelf.current())

    def diff(self, visit: Visit) -> Response:
        """What changed from one release to another."""
        old, new = visit.query.get("old", ""), visit.query.get("new", "")
        manifests = [
            None if name in ("", "base") else self.shelf.manifest(name) for name in (old, new)
        ]
        changes = [one for one in changes_of(*manifests) if told(one)]
        pager = Pager(visit.page, len(changes))
        return self._page(
            visit,
            "diff.html",
            old=old or "base",
            new=new or "base",
            changes=changes[pager.start : pager.end],
            pager=pager,
            names=self.shelf.releases()[::-1],
        )

    def people(self, visit: Visit) -> Response:
        """Who asked and said how much."""
        part, page = visit.query.get("q", "").strip(), visit.page
        found = self._journal.people(part, (page - 1) * PAGE, PAGE + 1)
        return self._page(
            visit,
            "people.html",
            people=found[:PAGE],
            pager=Pager(page, None, more=len(found) > PAGE),
            q=part,
            nameless=self.shelf.recall("nameless", 5, self._journal.nameless),
        )

    def health(self, visit: Visit) -> Response:
        """Sizes, versions, the disk, the model, and how long the last refresh took."""
        disk = shutil.disk_usage(self.home.path)
        names = [self.home.journal / (FILE_NAME + end) for end in ("", "-wal")]
        size = sum(path.stat().st_size for path in names if path.exists())
        return self._page(
            visit,
            "health.html",
            s=self._summary(),
            journal_bytes=size,
            disk=disk,
            packages=_versions(),
            talks=self.talks,
            seconds=self._seconds(),
            stages=STAGES,
        )

    # -- acting -------------------------------------------------------------------------------

    def promote(self, visit: Visit) -> Response:
        """Let a release answer all requests."""
        found = make_current(self.home, visit.path["release"], why=visit.said("why"), by=visit.who)
        return self._go(visit, "/releases", f"Release {found.id} answers.")

    def go_back(self, visit: Visit) -> Response:
        """Go back to an older release, or to the base model."""
        to, why = visit.said("to"), visit.said("why")
        if to == "base":
            retire(self.home, why, visit.who)
            found = None
        else:
            found = rollback(self.home, to or None, why, visit.who)
        return self._go(
            visit,
            "/releases",
            f"Release {found.id} answers." if found else "The base model answers.",
        )

    def hold(self, visit: Visit) -> Response:
        """Let refreshes publish without promoting."""
        hold(self.home, visit.said("why"), visit.who)
        return self._go(visit, "/releases", "Held: refreshes publish, and promote nothing.")

    def end_hold(self, visit: Visit) -> Response:
        """End the hold."""
        ended = let_go(self.home, visit.said("why"), visit.who)
        done = "Refreshes promote again." if ended else "Nothing was held."
        return self._go(visit, "/releases", done)

    def trial(self, visit: Visit) -> Response:
        """The conversation of this browser."""
        talk = self.talks.of(visit.session.id) if self.talks else None
        return self._page(visit, "try.html", talk=talk, talks=self.talks)

    def ask(self, visit: Visit) -> Response:
        """Ask the model."""
        self._talks().ask(visit.session.id, visit.who, visit.said("text"))
        return self._go(visit, "/try")

    def rate(self, visit: Visit) -> Response:
        """Say something about an answer."""
        score = {"up": 1.0, "down": 0.0}.get(visit.said("score"))
        self._talks().rate(
            visit.session.id,
            visit.who,
            visit.said("run"),
            score=score,
            comment=visit.said("comment") or None,
            correction=visit.said("correction") or None,
        )
        return self._go(visit, "/try", "Saved.")

    def begin(self, visit: Visit) -> Response:
        """Begin a new conversation."""
        self._talks().begin(visit.session.id)
        return self._go(visit, "/try")

    def ask_to_forget(self, visit: Visit) -> Response:
        """Ask whether somebody is to be forgotten; the id is typed to confirm it."""
        kind, name = visit.query.get("kind", "user"), visit.query.get("id", "").strip()
        if kind not in _FORGETS or not name:
            raise InputError("Name what to forget: a user, a conversation or an answer, by its id.")
        known = self._journal.people(name, 0, 1000) if kind == "user" else []
        person = next((one for one in known if one.user_id == name), None)
        return self._page(visit, "forget.html", kind=kind, id=name, person=person)

    def forget(self, visit: Visit) -> Response:
        """Forget a user, a conversation or an answer, everywhere."""
        kind, name = visit.said("kind"), visit.said("id")
        if kind not in _FORGETS or not name:
            raise InputError("Name what to forget: a user, a conversation or an answer, by its id.")
        if visit.said("typed") != name:
            raise InputError("What was typed is not the id: nothing was forgotten.")
        given: Any = {_FORGETS[kind]: [name] if kind == "answer" else name}
        receipt = forget(self.home, **given)
        counts = (
            f"{receipt['interactions']} answers, {receipt['feedback']} pieces of feedback, "
            f"{receipt['releases_tainted']} releases revoked"
        )
        note(self.home, f"forget {kind}", None, counts, visit.who)
        if self.talks:
            self.talks.forget_all()
        done = f"Forgotten at {receipt['at']}: {counts}."
        return self._go(
            visit, "/people", done if receipt["found"] else "Nothing of that id was found."
        )

    def leave(self, visit: Visit) -> Response:
        """End the session."""
        response = RedirectResponse(f"{visit.base}/", 303)
        self.access.leave(response, visit.base or "/")
        return response

    # -- parts --------------------------------------------------------------------------------

    def _summary(self) -> dict[str, Any]:
        return self.shelf.recall("summary", 5, lambda: summary_of(self.home, self._journal))

    def _waiting(self) -> list[str]:
        """The releases that were published and not promoted since the current one was made."""
        current, names = self.shelf.current(), self.shelf.releases()
        newer = names[names.index(current) + 1 :] if current in names else names
        tried = {e.get("release") for e in read_history(self.home) if e.get("what") != _PUBLISHED}
        return [name for name in newer if name not in tried]

    def _seconds(self) -> dict[str, float]:
        newest = self.shelf.newest()
        if newest is None:
            return {}
        found: dict[str, float] = self.shelf.manifest(newest).figures.get("seconds", {})
        return found

    def _talks(self) -> Talks:
        if self.talks is None:
            raise Refused(404, "This console was started without a model (--no-model).")
        return self.talks


_PUBLISHED = "publish, not promoted"
_FORGETS = {"user": "user_id", "conversation": "thread_id", "answer": "run_ids"}


def _sealed(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _status(error: UNOError) -> int:
    if isinstance(error, InputError):
        return 422
    return 409 if isinstance(error, ReleaseError) else 503


def _versions() -> dict[str, str]:
    found = {"langchain-uno": __version__, "python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def console_router(
    home: str | os.PathLike[str] | None = None,
    namespace: str = "default",
    *,
    tokens: str | Sequence[Operator] | None = None,
    prefix: str = "",
    model: str | None = None,
    embedder: Any = None,
    with_model: bool = True,
) -> APIRouter:
    """Return the console as a router, to mount in an app of one's own.

    Args:
        home: the home folder; None: ``LANGCHAIN_UNO_HOME``.
        namespace: the tenant.
        tokens: ``"name:role:token,..."``, or operators; None: ``LANGCHAIN_UNO_CONSOLE_TOKENS``.
        prefix: of the paths, ``"/console"`` say. Give it here, not to ``include_router``.
        model: the base model of "try it", as ``UNOChatModel`` takes it; None: the bundled one.
        embedder: as ``UNOChatModel`` takes it.
        with_model: False: the console loads no model, and nothing can be tried in it.

    Raises:
        ConfigError: no token is given, or one that can't be used.
        HomeError, StoreError: the home can't be read.
    """
    return _console(home, namespace, tokens, model, embedder, with_model).router(prefix)


def console_app(
    home: str | os.PathLike[str] | None = None, namespace: str = "default", **settings: Any
) -> FastAPI:
    """Return the console as an app; its settings are those of :func:`console_router`.

    Raises:
        ConfigError, HomeError, StoreError: see :func:`console_router`.
    """
    prefix = settings.pop("prefix", "")
    given = {"tokens": None, "model": None, "embedder": None, "with_model": True, **settings}
    console = _console(home, namespace, **given)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=console.shelf.warm, daemon=True).start()
        yield
        console.close()

    app = FastAPI(
        title="UNO console", docs_url=None, redoc_url=None, openapi_url=None, lifespan=life
    )
    app.include_router(console.router(prefix))
    return app


def _console(
    home: str | os.PathLike[str] | None,
    namespace: str,
    tokens: str | Sequence[Operator] | None,
    model: str | None,
    embedder: Any,
    with_model: bool,
) -> Console:
    place = Home.locate(home, namespace).require()
    given = os.environ.get(ENV_TOKENS, "") if tokens is None else tokens
    operators = read_tokens(given) if isinstance(given, str) else list(given)
    if not operators:
        raise ConfigError(
            f"The console needs a token: set {ENV_TOKENS}='name:role:token,...', or pass tokens."
        )
    talks = Talks(place, model, embedder) if with_model else None
    return Console(place, operators, talks)
