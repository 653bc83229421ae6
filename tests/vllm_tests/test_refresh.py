"""A refresh whose answers vLLM writes: adapters under test are placed there like releases."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from langchain_uno.demo.drawing import make_world
from langchain_uno.home import Home
from langchain_uno.releases.load import read_current
from langchain_uno.train import refresh_home
from tests.integration_tests.test_learning import a_week
from tests.vllm_tests.conftest import Server


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server as it is by default: blanks in JSON are free. The model learnt JSON with blanks."""
    made = Server(os.environ["VLLM_PYTHON"], tmp_path_factory.mktemp("free"))
    made.start()
    yield made
    made.kill()


@pytest.mark.parametrize("route", ["expert", "critic"])
def test_the_release_is_that_of_a_refresh_without_a_server(
    route: str, free: Server, tmp_path: Path
) -> None:
    """Greedy answers are the same on both sides; sampled ones differ, and with them the weights."""
    # The gap decides the route; its threshold is set so that it must fall on one side.
    sets = [f"gap.threshold={1.01 if route == 'expert' else 0.0}"]
    plain = a_week(make_world(3, noise=0.2, families=2), Home(tmp_path / "plain").ensure(), 84)
    shutil.copytree(plain.root, tmp_path / "served")
    served = Home(tmp_path / "served")
    begun = time.monotonic()
    here = refresh_home(plain.root, sets=sets)
    between = time.monotonic()
    there = refresh_home(
        served.root, sets=sets, generate_url=free.url, generate_adapters=str(free.adapters)
    )
    took = between - begun, time.monotonic() - between
    for result in (here, there):
        print(route, [(c.id, c.route, c.win_rate, c.rules) for c in result.clusters])
    print(f"{route}: {took[0]:.0f} s here, {took[1]:.0f} s with the server")
    same = ("id", "size", "people", "route", "rules", "gap")
    for one, other in zip(here.clusters, there.clusters, strict=True):
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
        assert other.win_rate == pytest.approx(one.win_rate, abs=0.25)
    assert route in {c.route for c in there.clusters}
    release = read_current(served)
    assert release is not None and release.adapters
    left = {path.name for path in free.adapters.iterdir()}
    assert all(name.startswith("uno-base-") or name in release.adapters for name in left), left
