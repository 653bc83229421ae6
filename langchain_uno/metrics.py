"""Figures for Prometheus: what was captured and answered, and how the last refresh went.

Where ``langchain-uno[metrics]`` is installed, every ``UNOFeedbackHandler`` counts into
prometheus-client's own registry, so an app that has a ``/metrics`` page shows it there;
``feedback_app(home, metrics=True)`` serves one. A refresh writes ``HOME/metrics.prom`` for
node_exporter's textfile collector. Labels are routes, stages, releases and namespaces, never what a
user wrote or is called.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from langchain_uno.errors import UNOError, no_package
from langchain_uno.forks import ForkLock
from langchain_uno.home import Home, is_safe

prometheus: Any
try:
    import prometheus_client as prometheus
except ImportError:  # an extra
    prometheus = None

FILE = "metrics.prom"
"""In a home: what the last refresh did."""
_SUCCESS = "langchain_uno_refresh_last_success_timestamp_seconds"

if prometheus is not None:
    _CAPTURED = prometheus.Counter(
        "langchain_uno_capture", "What became of records: recorded, feedback, dropped ...", ["what"]
    )
    _WAITING = prometheus.Gauge("langchain_uno_capture_waiting", "Records that wait for the disk.")
    _ANSWERS = prometheus.Histogram(
        "langchain_uno_answer_seconds",
        "Answers and their seconds, by route and release.",
        ["route", "release"],
        buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    )
    _UNSEEN = prometheus.Counter(
        "langchain_uno_unseen", "Requests that no cluster of a release took.", ["release"]
    )


_LOCK = ForkLock(wait=True)
"""The library's own locks would stay locked in a child that was forked while one was held."""


def captured(what: str) -> None:
    """Count a record by what became of it, in the words of ``UNOFeedbackHandler.stats``."""
    if prometheus is not None:
        with _LOCK:
            _CAPTURED.labels(what).inc()


def waiting(more: int) -> None:
    """Tell that so many more records wait, or fewer."""
    if prometheus is not None:
        with _LOCK:
            _WAITING.inc(more)


def answered(record: Mapping[str, Any]) -> None:
    """Count an answer.

    Args:
        record: of the interaction, as it is journalled.
    """
    if prometheus is None:
        return
    release = record.get("release") or ""
    release = release if is_safe(release) else ""  # any model may write there
    with _LOCK:
        of_route = _ANSWERS.labels(record.get("route") or "", release)
        of_route.observe(record.get("latency_s") or 0.0)
        if release and not record.get("cluster"):
            _UNSEEN.labels(release).inc()


def exposition(home: Home) -> bytes:
    """Return the page that Prometheus reads: this process's registry, and the last refresh.

    Raises:
        ConfigError: prometheus-client is not installed.
    """
    if prometheus is None:
        raise no_package("Metrics need", "prometheus-client", "metrics")
    with _LOCK:
        page: bytes = prometheus.generate_latest()
    with suppress(FileNotFoundError):  # no refresh has written it yet
        page += (home.path / FILE).read_bytes()
    return page


@contextmanager
def refresh_noted(home: Home) -> Iterator[dict[str, Any]]:
    """Write ``metrics.prom`` when a refresh ends, however it ends.

    Args:
        home: whose refresh it is.

    Yields:
        Where the refresh puts its result as plain data, under "result".
    """
    began, code, told = time.time(), 1, dict[str, Any]()
    try:
        yield told
        code = 0
    except UNOError as error:
        code = error.exit_code
        raise
    except KeyboardInterrupt:
        code = 130
        raise
    finally:
        # A refresh does not fail because its figures can't be written.
        with suppress(OSError, ValueError):  # of a name that has no UTF-8 form, say
            if prometheus is not None and home.path.is_dir():
                _write(home, code, began, told.get("result") or {})


def _write(home: Home, code: int, began: float, result: Mapping[str, Any]) -> None:
    registry, now = prometheus.CollectorRegistry(), time.time()
    own = (home.root.name, home.namespace)

    def gauge(name: str, what: str, values: Mapping[str, float], *label: str) -> None:
        names = ("home", "namespace", *label)
        family = prometheus.Gauge(name, what, names, registry=registry)
        for key, value in values.items():
            family.labels(*own, *([key] if label else ())).set(value)

    start = "langchain_uno_refresh_"
    gauge(f"{start}last_end_timestamp_seconds", "When it ended.", {"": now})
    gauge(f"{start}exit_code", "How it ended, as the command's exit code.", {"": code})
    gauge(f"{start}seconds", "How long it took.", {"": now - began})
    gauge(_SUCCESS, "When one last came to its end.", {"": _last_success(home) if code else now})
    if result:
        routes = Counter(cluster["route"] for cluster in result["clusters"])
        gauge(f"{start}stage_seconds", "Seconds of a stage.", result["seconds"], "stage")
        gauge(f"{start}clusters", "Clusters by what answers them.", routes, "route")
        n = len(result["left_out"])
        gauge(f"{start}left_out_logs", "Logs that a stage failed on.", {"": n})
    prometheus.write_to_textfile(str(home.path / FILE), registry)


def _last_success(home: Home) -> float:
    """Return what the file before says; 0: no refresh has come to its end yet."""
    with suppress(OSError, ValueError):  # none yet, or a file that others wrote
        for line in (home.path / FILE).read_text(encoding="utf-8").splitlines():
            if line.startswith(_SUCCESS):
                return float(line.rpartition(" ")[2])
    return 0.0
