"""The clusters of a refresh, tried on a Ray cluster: many GPUs, many machines.

    run_refresh(home, engine, ..., spread=RayWorkers("auto", load))

A worker is a Ray actor. It loads the models once and calls what the plain run calls, one cluster at
a time (:func:`langchain_uno.learning.train.try_cluster`). What it finds goes into the same files of
the home, so all nodes must see the home under the same path, and the models under the same names.
Nothing else is distributed: all other stages run in the process of the command.

A worker that dies is started again and goes on from the training's last kept state. A cluster whose
worker fails for good is told, and tried by the command's own process.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from langchain_uno.errors import ConfigError, ModelMismatchError, UNOError, no_package
from langchain_uno.learning.train import try_cluster
from langchain_uno.learning.work import ClusterData, Silent, Work
from langchain_uno.models.protocols import Embedder, Engine

LoadModels = Callable[[], tuple[Engine, Embedder, Engine | None]]
"""Returns base model, embedder and teacher (None: the base model); Ray must be able to send it."""

LOOK_S = 30.0
"""Seconds between two checks of the limits of the refresh."""
RETRIES = 3
"""Times that a worker, and the cluster that it was at, is started again."""
_ANSWER_S = 10.0


class RayWorkers:
    """Tries clusters on a Ray cluster; one of :class:`langchain_uno.learning.work.Spread`.

    A worker takes a GPU where the base model runs on one here, else as many CPUs as torch has
    threads here: with as many threads a training gives the same weights.

    Args:
        address: of the Ray cluster: ``"auto"`` for one that runs on this machine, or else one of
            this machine's CPUs and GPUs for the time of the stage; ``"host:6379"``.
        load: loads the models in a worker.

    Raises:
        ConfigError: Ray is not installed, or nobody answers at the address.
    """

    def __init__(self, address: str, load: LoadModels) -> None:
        # What a deployment trains is nobody else's business: Ray reports usage unless told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise no_package("--ray needs", error.name, "ray") from error
        if address != "auto":  # Ray itself would wait for minutes
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"No Ray cluster answers at {address!r} ({error}): start one (ray start "
                    "--head) and give HOST:PORT, or give auto."
                ) from error
        self._ray: Any = ray
        self._address = address
        self._load = load

    def __call__(self, work: Work, clusters: Sequence[ClusterData]) -> list[str]:
        """Try clusters, each in a worker; what is tried is in the work folder.

        Returns:
            What to tell of workers that failed.

        Raises:
            ConfigError: the Ray cluster can't be joined, or lacks the GPUs.
            PausedError: a limit of time or disk was met.
        """
        import torch

        with self._connected():
            model = getattr(work.engine, "model", None)
            on_gpu = model is not None and model.device.type == "cuda"
            threads = torch.get_num_threads()
            nodes = [n["Resources"] for n in self._ray.nodes() if n["Alive"]]
            if on_gpu and not any(n.get("GPU", 0) >= 1 for n in nodes):
                raise ConfigError(
                    f"The Ray cluster {self._address!r} has no GPU, and {work.engine.model_name!r} "
                    "runs on one here: start its nodes with --num-gpus, or leave out --ray."
                )
            most = int(max(n.get("CPU", 0) for n in nodes))
            start = self._ray.remote(_Worker).options(
                num_cpus=1 if on_gpu else max(1, min(threads, most)),
                num_gpus=1 if on_gpu else 0,
                max_restarts=RETRIES,
                max_task_retries=RETRIES,
            )
            # A worker puts its own models in the place of these.
            own: dict[str, Any] = dict.fromkeys(("engine", "embedder", "reranker", "teacher"))
            # Limits are checked in this process: other machines have other monotonic clocks.
            own |= {"stop_at": None, "min_free_gb": None}
            bare = replace(work, progress=Silent(), spread=None, **own)
            sent = self._ray.put((bare, self._load, work.engine.fingerprint, threads))
            work.progress.start("train", len(clusters), f"{len(clusters)} clusters on Ray")
            workers = [start.remote() for _ in clusters]
            try:
                return self._spread(work, clusters, workers, sent)
            finally:
                for worker in workers:
                    self._ray.kill(worker)

    def _spread(
        self, work: Work, clusters: Sequence[ClusterData], workers: Sequence[Any], sent: Any
    ) -> list[str]:
        """Give each worker that is up the next cluster, until none is left."""
        todo = list(clusters)
        # As many start as there is room for; a worker without a cluster is on its way.
        busy: dict[Any, tuple[Any, ClusterData | None]] = {
            worker.run.remote(sent, None): (worker, None) for worker in workers
        }
        told: list[str] = []
        while busy:
            found, _ = self._ray.wait(list(busy), num_returns=1, timeout=LOOK_S)
            work.check_limits()
            if not found:
                continue
            worker, cluster = busy.pop(found[0])
            dead = False
            try:
                self._ray.get(found[0])
            except self._ray.exceptions.RayError as error:
                dead = cluster is None or isinstance(error, self._ray.exceptions.RayActorError)
                told.append(_failed(cluster, error))
            if cluster is not None:
                work.progress.advance("train")
            if todo and not dead:
                cluster = todo.pop(0)
                busy[worker.run.remote(sent, cluster)] = (worker, cluster)
            elif not todo:
                for one in [w for w, at in busy.values() if at is None]:
                    self._ray.kill(one)
                busy = {ref: pair for ref, pair in busy.items() if pair[1] is not None}
                self._ray.kill(worker)  # makes room for one that has to be started again
        return list(dict.fromkeys(told))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Join or start the Ray cluster, unless this process is in one already."""
        if self._ray.is_initialized():
            yield
            return
        try:
            self._ray.init(
                address=None if self._address == "auto" else self._address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"The Ray cluster {self._address!r} can't be joined: {error}"
            ) from error
        try:
            yield
        finally:
            self._ray.shutdown()


class _Worker:
    """What runs in a process of Ray: the models, and a refresh's parts around them."""

    def __init__(self) -> None:
        self._work: Work | None = None

    def run(self, sent: tuple[Work, LoadModels, str, int], cluster: ClusterData | None) -> None:
        """Try a cluster as the plain run does; None: load the models."""
        if self._work is None:
            self._work = _around(*sent)
        if cluster is not None:
            try_cluster(self._work, cluster)


def _around(work: Work, load: LoadModels, fingerprint: str, threads: int) -> Work:
    """Return a refresh around models of this process's own."""
    import torch

    from langchain_uno.models.rerankers import EngineReranker

    torch.set_num_threads(threads)
    engine, embedder, teacher = load()
    if engine.fingerprint != fingerprint:
        raise ModelMismatchError(
            f"{engine.model_name!r} is another model on the node {platform.node()!r}: all nodes "
            "need the same weights."
        )
    return replace(
        work,
        engine=engine,
        embedder=embedder,
        reranker=EngineReranker(engine, work.prompts),
        teacher=teacher or engine,
    )


def _failed(cluster: ClusterData | None, error: Any) -> str:
    """Say which cluster failed in a worker, and why; only our own errors quote no users."""
    cause = getattr(error, "cause", None) or error
    why = str(cause) if isinstance(cause, UNOError) else type(cause).__name__
    what = f"{cluster.id}: its Ray worker failed" if cluster else "A Ray worker did not start"
    return f"{what} ({why}); this process took over."
