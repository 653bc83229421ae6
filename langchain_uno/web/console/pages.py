"""The console's pages and actions."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from langchain_uno import __version__
from langchain_uno.erasure import counts_of, forget, forget_preview
from langchain_uno.errors import InputError, ReleaseError
from langchain_uno.home import Home
from langchain_uno.learning.review import decide, review_table
from langchain_uno.learning.work import refresh_line
from langchain_uno.logs.figures import people_in
from langchain_uno.logs.journal import FILE_NAME, Journal
from langchain_uno.records import STAGES
from langchain_uno.releases import canary
from langchain_uno.releases.history import held, hold, let_go, read_history, waiting
from langchain_uno.releases.load import list_releases
from langchain_uno.releases.publish import make_current, rollback
from langchain_uno.releases.summary import changes_of, said_of, shares_of, state_of, summary_of
from langchain_uno.releases.traffic import answering
from langchain_uno.reports import cluster_map, report_paths
from langchain_uno.reports.render import shown
from langchain_uno.web.console.access import SESSION_S, Operator, Refused, Role
from langchain_uno.web.console.guard import Guard, Handler, Visit
from langchain_uno.web.console.shelf import Shelf
from langchain_uno.web.console.talk import Talks
from langchain_uno.web.console.views import PAGE, Pager, fits, told

_PACKAGES = (
    "langchain", "langgraph", "langchain-huggingface", "peft", "trl", "transformers", "chromadb",
    "torch",
)  # fmt: skip
_HISTORY = 50


class Console(Guard):
    """The pages of one namespace."""

    def __init__(self, home: Home, operators: Sequence[Operator], talks: Talks | None) -> None:
        super().__init__(operators)
        self.home, self.talks = home, talks
        self.shelf = Shelf(home)
        # Answers take long: they must not take the threads that pages need.
        self._asking = ThreadPoolExecutor(2, thread_name_prefix="uno-console")

    def router(self, prefix: str, alone: bool = False) -> APIRouter:
        """Return the routes.

        Args:
            prefix: of their paths.
            alone: whether every path is the console's, without a prefix too.
        """
        prefix = f"/{prefix.strip('/')}".rstrip("/")
        router = APIRouter(include_in_schema=False)
        routes: tuple[tuple[str, str, Role, Handler], ...] = (
            ("GET", "/", "read", self.overview),
            ("GET", "/clusters", "read", self.clusters),
            ("GET", "/clusters/{cluster}", "read", self.cluster),
            ("GET", "/review", "read", self.review),
            ("GET", "/releases", "read", self.releases),
            ("GET", "/releases/{release}", "read", self.release),
            ("GET", "/diff", "read", self.diff),
            ("GET", "/report/{release}", "read", self.report),
            ("GET", "/try", "read", self.trial),
            ("GET", "/people", "read", self.people),
            ("GET", "/forget", "release", self.ask_to_forget),
            ("GET", "/health", "read", self.health),
            ("POST", "/releases/{release}/promote", "release", self.promote),
            ("POST", "/releases/{release}/canary", "release", self.start_canary),
            ("POST", "/canary/watch", "release", self.watch_canary),
            ("POST", "/canary/stop", "release", self.stop_canary),
            ("POST", "/rollback", "release", self.go_back),
            ("POST", "/hold", "release", self.hold),
            ("POST", "/hold/end", "release", self.end_hold),
            ("POST", "/review", "review", self.decide),
            ("POST", "/try/ask", "review", self.ask),
            ("POST", "/try/rate", "review", self.rate),
            ("POST", "/try/new", "review", self.begin),
            ("POST", "/forget", "release", self.forget),
            ("POST", "/leave", "read", self.leave),
        )
        for method, path, need, handler in routes:
            pool = self._asking if handler == self.ask else None
            endpoint = self.guarded(prefix, need, handler, pool)
            router.add_route(prefix + path, endpoint, methods=[method])
        router.add_route(prefix + "/enter", self.enter(prefix), methods=["GET", "POST"])
        router.add_route(prefix + "/static/{name}", self.static, methods=["GET"])
        if prefix:
            router.add_route(prefix, self.root(prefix), methods=["GET"])
        if prefix or alone:
            unknown = self.guarded(prefix, "read", self.unknown)
            router.add_route(prefix + "/{rest:path}", unknown, methods=["GET"])
        return router

    def close(self) -> None:
        """End what answers."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        if self.talks:
            self.talks.close()

    # -- looking ------------------------------------------------------------------------------

    def overview(self, visit: Visit) -> Response:
        """What answers, how much of the traffic it covers, and what waits for a person."""
        return self.page(
            visit,
            "overview.html",
            s=self._summary(),
            current=answering(self.home),
            held=held(self.home),
            waiting=waiting(self.home),
            refresh=refresh_line(self.home),
            **self._canary(),
        )

    def clusters(self, visit: Visit) -> Response:
        """The clusters of one release, searchable."""
        chosen = visit.query.get("release") or answering(self.home) or self.shelf.newest()
        query, route = visit.query.get("q", "").strip(), visit.query.get("route", "")
        found = self.shelf.manifest(chosen).clusters if chosen else []
        routes = sorted({cluster.route for cluster in found})
        found = [c for c in found if (not route or c.route == route) and fits(c, query)]
        pager = Pager(visit.page, len(found))
        report = self.shelf.report(chosen) if chosen and not query and not route else None
        return self.page(
            visit,
            "clusters.html",
            release=chosen,
            releases=list_releases(self.home),
            clusters=found[pager.start : pager.end],
            pager=pager,
            q=query,
            route=route,
            routes=routes,
            map=cluster_map(report.points) if report else "",
        )

    def cluster(self, visit: Visit) -> Response:
        """One cluster: its rules and the evidence."""
        chosen = visit.query.get("release") or answering(self.home) or self.shelf.newest()
        manifest = self.shelf.manifest(chosen or "none")
        found = next((c for c in manifest.clusters if c.id == visit.path["cluster"]), None)
        if found is None:
            raise Refused(404, f"Release {chosen} has no cluster {visit.path['cluster']!r}.")
        counts = {
            name: manifest.figures.get(name, {}).get(found.id)
            for name in ("pairs", "train", "verify")
        }
        report = self.shelf.report(manifest.id)
        parts = report.clusters if report else []
        return self.page(
            visit,
            "cluster.html",
            release=chosen,
            cluster=found,
            counts=counts,
            told=next((part for part in parts if part.id == found.id), None),
        )

    def review(self, visit: Visit) -> Response:
        """Rules and pairs of the refresh under way, or of the last one, with what was decided."""
        kind: Any = visit.query.get("kind")
        kind = kind if kind in ("rule", "pair", "log") else "rule"
        cluster = visit.query.get("cluster", "").strip() or None
        start = (visit.page - 1) * PAGE
        table = review_table(self.home, kind=kind, cluster=cluster, offset=start, limit=PAGE)
        pager = Pager(visit.page, table.total)
        if pager.start != start:
            start = pager.start
            table = review_table(self.home, kind=kind, cluster=cluster, offset=start, limit=PAGE)
        return self.page(
            visit, "review.html", table=table, kind=kind, cluster=cluster or "", pager=pager
        )

    def report(self, visit: Visit) -> Response:
        """The report of the refresh that made a release, as it was written."""
        path = report_paths(self.home, visit.path["release"]).html
        try:
            response = Response(path.read_bytes(), media_type="text/html")
        except OSError as error:
            raise Refused(404, f"Release {visit.path['release']} has no report.") from error
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; "
            "sandbox allow-top-navigation-by-user-activation"
        )
        return response

    def releases(self, visit: Visit) -> Response:
        """All releases, the newest first, and who changed what."""
        names = list_releases(self.home)[::-1]
        pager = Pager(visit.page, len(names))
        shares = shares_of(self.home)
        rows = [self.shelf.row(n, shares.get(n, 0.0)) for n in names[pager.start : pager.end]]
        history = read_history(self.home)[-_HISTORY:][::-1]
        return self.page(
            visit,
            "releases.html",
            rows=rows,
            pager=pager,
            history=history,
            held=held(self.home),
            **self._canary(),
            current=answering(self.home),
            before=self._before(),
            names=names,
        )

    def release(self, visit: Visit) -> Response:
        """One release, and what may be done with it."""
        name = visit.path["release"]
        manifest = self.shelf.manifest(name)
        row = self.shelf.row(name, shares_of(self.home).get(name, 0.0))
        return self.page(
            visit,
            "release.html",
            m=manifest,
            row=row,
            current=answering(self.home),
            **self._canary(),
            has_report=report_paths(self.home, name).html.exists(),
        )

    def diff(self, visit: Visit) -> Response:
        """What changed from one release to another."""
        old, new = visit.query.get("old", ""), visit.query.get("new", "")
        manifests = [
            None if name in ("", "base") else self.shelf.manifest(name) for name in (old, new)
        ]
        changes = [one for one in changes_of(*manifests) if told(one)]
        pager = Pager(visit.page, len(changes))
        return self.page(
            visit,
            "diff.html",
            old=old or "base",
            new=new or "base",
            changes=changes[pager.start : pager.end],
            pager=pager,
            names=list_releases(self.home)[::-1],
        )

    def people(self, visit: Visit) -> Response:
        """Who asked and said how much."""
        part, page = visit.query.get("q", "").strip(), visit.page
        with Journal(self.home.journal, readonly=True) as journal:
            found = people_in(journal, part, (page - 1) * PAGE, PAGE + 1)
            nameless = self.shelf.glance("nameless", journal.nameless, None)
        return self.page(
            visit,
            "people.html",
            people=found[:PAGE],
            pager=Pager(page, None, more=len(found) > PAGE),
            q=part,
            nameless=nameless,
        )

    def health(self, visit: Visit) -> Response:
        """Sizes, versions, the disk, the model, and how long the last refresh took."""
        names = [self.home.journal / (FILE_NAME + end) for end in ("", "-wal")]
        size = sum(path.stat().st_size for path in names if path.exists())
        newest = self.shelf.newest()
        return self.page(
            visit,
            "health.html",
            s=self._summary(),
            journal_bytes=size,
            disk=shutil.disk_usage(self.home.path),
            packages=_versions(),
            talks=self.talks,
            seconds=self.shelf.manifest(newest).figures.get("seconds", {}) if newest else {},
            stages=STAGES,
        )

    def unknown(self, visit: Visit) -> Response:
        """No page has this address."""
        raise Refused(404, "The console has no page of this address.")

    # -- acting -------------------------------------------------------------------------------

    def promote(self, visit: Visit) -> Response:
        """Let a release answer all requests."""
        found = make_current(self.home, visit.path["release"], why=visit.said("why"), by=visit.who)
        return self._changed(visit, f"Release {found.id} answers.")

    def go_back(self, visit: Visit) -> Response:
        """Go back to an older release, or to the base model."""
        found = rollback(self.home, visit.said("to") or None, visit.said("why"), visit.who)
        return self._changed(
            visit, f"{f'Release {found.id}' if found else 'The base model'} answers."
        )

    def start_canary(self, visit: Visit) -> Response:
        """Let a release answer a part of the people; or a larger part, if it does already."""
        try:
            share, people = float(visit.said("share")) / 100, int(visit.said("people"))
            days = float(visit.said("days"))
        except ValueError as error:
            raise InputError("Share, people and days are numbers.") from error
        plan = canary.start(
            self.home, visit.path["release"], share=share, people=people, days=days,
            by=visit.who, why=visit.said("why"),
        )  # fmt: skip
        done = f"Release {plan.release} answers {100 * plan.share:.0f} % of the people."
        if (plan.people, plan.days) != (people, days):
            done += f" Its budget stays {plan.people:,} people and {plan.days:g} days."
        return self._changed(visit, done)

    def watch_canary(self, visit: Visit) -> Response:
        """Look at the canary, and do what its figures say."""
        return self._changed(visit, f"The canary: {canary.watch(self.home).verdict}.")

    def stop_canary(self, visit: Visit) -> Response:
        """End the canary: what was current answers everything."""
        ended = canary.stop(self.home, visit.who, visit.said("why"))
        return self._changed(visit, "The canary ended." if ended else "No canary ran.")

    def decide(self, visit: Visit) -> Response:
        """Write one decision about a rule, a pair or a log."""
        names = ("id", "decision", "text", "cluster")
        wanted: dict[str, Any] = {name: visit.said(name) for name in names if visit.said(name)}
        wanted["everywhere"] = visit.said("everywhere") == "yes"
        made = decide(self.home, [wanted], visit.who, visit.said("why"))
        place = {name: visit.said(f"at_{name}") for name in ("kind", "cluster", "page")}
        row = f"#{quote(visit.said('id'))}" if visit.said("id") else ""
        path = f"/review?{urlencode({k: v for k, v in place.items() if v})}{row}"
        done = "Decided: the next refresh obeys." if made else "Nothing was changed by that."
        return self.go(visit, path, done)

    def hold(self, visit: Visit) -> Response:
        """Let refreshes publish without promoting."""
        routes = visit.said("when") == "routes"
        hold(self.home, visit.said("why"), visit.who, "routes" if routes else "always")
        what = "what changes a route" if routes else "what refreshes publish"
        return self.go(visit, "/releases", f"Held: a person promotes {what}.")

    def end_hold(self, visit: Visit) -> Response:
        """End the hold."""
        ended = let_go(self.home, visit.said("why"), visit.who)
        done = "Refreshes promote again." if ended else "Nothing was held."
        return self.go(visit, "/releases", done)

    def trial(self, visit: Visit) -> Response:
        """The conversation of this browser."""
        talk = self.talks.of(visit.session.id) if self.talks else None
        return self.page(visit, "try.html", talk=talk, talks=self.talks)

    def ask(self, visit: Visit) -> Response:
        """Ask the model."""
        self._talks().ask(visit.session.id, visit.who, visit.said("text"))
        return self.go(visit, "/try")

    def rate(self, visit: Visit) -> Response:
        """Say something about an answer."""
        # A pressed thumb sends "back", so that a double click leaves it pressed.
        scores: dict[str, Any] = {"up": 1.0, "down": 0.0, "back": ""}
        self._talks().rate(
            visit.session.id,
            visit.who,
            visit.said("run"),
            score=scores.get(visit.said("score")),
            comment=visit.said("comment") if "comment" in visit.form else None,
            correction=visit.said("correction") if "correction" in visit.form else None,
        )
        return self.go(visit, "/try", "Saved.")

    def begin(self, visit: Visit) -> Response:
        """Begin a new conversation."""
        self._talks().begin(visit.session.id)
        return self.go(visit, "/try")

    def ask_to_forget(self, visit: Visit) -> Response:
        """Ask whether somebody is to be forgotten; the id is typed to confirm it."""
        kind, name = visit.query.get("kind", "user"), visit.query.get("id", "")
        asked = _to_forget(kind, name)
        found = self.shelf.glance(
            f"forget {asked}", lambda: forget_preview(self.home, **asked), 0.7
        )
        shares, taught = shares_of(self.home), found["releases"] if found else ()
        releases = {r: state_of(self.home, r, shares.get(r, 0.0)) for r in taught}
        told = {"kind": kind, "id": name, "found": found, "releases": releases, "said_of": said_of}
        signed = self._access.sign_message(visit.session, name)
        return self.page(visit, "forget.html", signed=signed, **told)

    def forget(self, visit: Visit) -> Response:
        """Forget a user, a conversation or an answer, everywhere."""
        kind, signed = visit.said("kind"), visit.said("id")
        name = self._access.message(visit.session, signed, SESSION_S)  # line breaks and all
        asked = _to_forget(kind, name)
        if visit.said("typed").split() not in (name.split(), shown(name).split()):
            raise InputError("What was typed is not the id: nothing was forgotten.")
        receipt = forget(self.home, **asked, by=visit.who)
        self.shelf.forget()
        if self.talks:
            self.talks.forget_all()
        gone = f"Forgotten at {receipt['at']}: {counts_of(receipt)}."
        if receipt["releases"]:
            gone += f" Revoked: {', '.join(receipt['releases'])}."
            gone += f" This answers now: {said_of(receipt['answers'])}."
        done = gone if receipt["found"] else "Nothing of that id was found."
        return self.go(visit, "/people", done)

    def leave(self, visit: Visit) -> Response:
        """End the session."""
        response = RedirectResponse(f"{visit.base}/", 303)
        self._access.leave(response, visit.base or "/", visit.who)
        return response

    # -- parts --------------------------------------------------------------------------------

    def _changed(self, visit: Visit, said: str) -> Response:
        """Go on to the releases; what was read of them is read anew."""
        self.shelf.forget()
        return self.go(visit, "/releases", said)

    def _summary(self) -> dict[str, Any]:
        return self.shelf.glance("summary", self._look, None) or {}

    def _canary(self) -> dict[str, Any]:
        """Return the canary that runs, with its figures as far as they are counted.

        Also the one that ended undecided, and why neither can be read.
        """
        found: dict[str, Any] = {"canary": None, "undecided": None, "damaged": ""}
        try:
            found["undecided"] = canary.undecided(self.home)
            if plan := canary.running(self.home):
                seen = self.shelf.glance(
                    "canary", lambda: canary.look(self.home, self.shelf.manifest)
                )
                found["canary"] = {"plan": plan, "seen": seen}
        except ReleaseError as error:
            found["damaged"] = str(error)
        return found

    def _before(self) -> str:
        """Return what answers again where the current release is rolled back; "": unknown."""
        current = answering(self.home)
        try:
            before = self.shelf.manifest(current).parent if current else None
        except ReleaseError:
            return ""
        return before or "base"

    def _look(self) -> dict[str, Any]:
        with Journal(self.home.journal, readonly=True) as journal:
            return summary_of(self.home, journal, self.shelf.manifest)

    def _talks(self) -> Talks:
        if self.talks is None:
            raise Refused(404, "This console was started without a model (--no-model).")
        return self.talks


_FORGETS = {"user": "user_id", "conversation": "thread_id", "answer": "run_ids"}


def _to_forget(kind: str, name: str) -> dict[str, Any]:
    """Return the arguments of an erasure."""
    if kind not in _FORGETS or not name.strip():
        raise InputError("Name what to forget: a user, a conversation or an answer, by its id.")
    return {_FORGETS[kind]: [name] if kind == "answer" else name}


def _versions() -> dict[str, str]:
    found = {"langchain-uno": __version__, "python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
