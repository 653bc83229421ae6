"""What Prometheus reads: capture, serving, the last refresh; nothing that a user wrote."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from shutil import rmtree
from unittest.mock import Mock
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from prometheus_client.parser import text_string_to_metric_families

from langchain_uno.callbacks import UNOFeedbackHandler
from langchain_uno.errors import ConfigError, EmptyLogError, EngineError, StoreError
from langchain_uno.home import Home
from langchain_uno.metrics import FILE, answered, exposition, refresh_noted
from langchain_uno.train import refresh_home
from langchain_uno.web.feedback import feedback_app
from tests.unit_tests.graphs.refresh_parts import logs, make_home

SECRET = "a secret of thirty-two characters"


def read(page: bytes) -> dict[tuple[str, str], float]:
    """Value by name and labels' values, joined."""
    return {
        (one.name, " ".join(v for k, v in sorted(one.labels.items()) if k not in OWN)): one.value
        for family in text_string_to_metric_families(page.decode())
        for one in family.samples
    }


OWN = ("home", "namespace")


def ask(handler: UNOFeedbackHandler, **told: str | None) -> None:
    reply = AIMessage("the answer", response_metadata=told)
    model = FakeMessagesListChatModel(responses=[reply])
    model.invoke("the question of ann@example.org", config={"callbacks": [handler]})


def test_a_process_tells_what_it_captured_and_served(tmp_path: Path) -> None:
    home = Home.locate(tmp_path)
    before = Counter(read(exposition(home)))
    with UNOFeedbackHandler(home=tmp_path, user_id="ann") as handler:
        ask(handler, route="expert", release="r1", cluster="c1")
        ask(handler, route="base", release="r1")
        ask(handler)
        ask(handler, release="../Ann's own words")
        handler.feedback(uuid4(), score=1.0)
        page = exposition(home)
    found = read(page)

    def new(name: str, labels: str = "") -> float:
        return found[name, labels] - before[name, labels]

    assert new("langchain_uno_capture_total", "recorded") == 4
    assert new("langchain_uno_capture_total", "feedback") == 1
    assert new("langchain_uno_capture_waiting") == 0
    assert new("langchain_uno_answer_seconds_count", "r1 expert") == 1
    assert new("langchain_uno_answer_seconds_count", "r1 base") == 1
    assert new("langchain_uno_answer_seconds_count", " ") == 2
    assert new("langchain_uno_unseen_total", "r1") == 1
    ours = [line for line in page.decode().splitlines() if "langchain_uno" in line]
    assert not any(word in "\n".join(ours) for word in ("ann", "Ann", "question"))


def test_records_that_wait_are_told_until_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.locate(tmp_path)
    with UNOFeedbackHandler(home=tmp_path, max_waiting=2) as handler:
        before = Counter(read(exposition(home)))
        with monkeypatch.context() as patch:
            patch.setattr(handler._journal, "append_record", Mock(side_effect=StoreError("full")))
            for _ in range(3):
                ask(handler)
            during = Counter(read(exposition(home)))
        handler.flush()
        after = Counter(read(exposition(home)))
    during.subtract(before)
    after.subtract(before)
    assert during["langchain_uno_capture_waiting", ""] == 2
    assert during["langchain_uno_capture_total", "dropped"] == 1
    assert after["langchain_uno_capture_waiting", ""] == 0
    assert after["langchain_uno_capture_total", "recorded"] == 2


def test_counting_costs_a_request_microseconds() -> None:
    record = {"latency_s": 0.3, "route": "expert", "release": "r1"}
    start = time.process_time()
    for _ in range(10_000):
        answered(record)
    assert (time.process_time() - start) / 10_000 < 1e-4


def test_the_feedback_app_has_a_page_for_prometheus_where_it_is_asked_for(tmp_path: Path) -> None:
    app = feedback_app(tmp_path, secret=SECRET, metrics=True)
    (tmp_path / FILE).write_text("langchain_uno_refresh_exit_code 0.0\n")
    with TestClient(app) as client:
        page = client.get("/metrics")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/plain")
    found = read(page.content)
    assert ("langchain_uno_capture_waiting", "") in found
    assert found["langchain_uno_refresh_exit_code", ""] == 0
    with TestClient(feedback_app(tmp_path, secret=SECRET)) as client:
        assert client.get("/metrics").status_code == 404


def test_a_refresh_leaves_its_figures_however_it_ends(
    tmp_path: Path, tiny_model_path: Path
) -> None:
    home = make_home(tmp_path / "home", logs(12))
    with pytest.raises(EngineError):  # a tiny model can't judge
        refresh_home(home.root, model=str(tiny_model_path), sets=["role_tokens=8"])
    found = read((home.path / FILE).read_bytes())
    assert found["langchain_uno_refresh_exit_code", ""] == 10
    assert found["langchain_uno_refresh_seconds", ""] > 0
    assert found["langchain_uno_refresh_last_success_timestamp_seconds", ""] == 0
    with refresh_noted(home) as told:
        told["result"] = {
            "clusters": [{"route": "expert"}, {"route": "base"}, {"route": "base"}],
            "seconds": {"distil": 2.5},
            "left_out": {"run-1": "no answer"},
        }
    done = read((home.path / FILE).read_bytes())
    assert done["langchain_uno_refresh_clusters", "base"] == 2
    assert done["langchain_uno_refresh_stage_seconds", "distil"] == 2.5
    assert done["langchain_uno_refresh_left_out_logs", ""] == 1
    assert "run-1" not in (home.path / FILE).read_text()
    success = done["langchain_uno_refresh_last_success_timestamp_seconds", ""]
    assert success == pytest.approx(time.time(), abs=60)
    with pytest.raises(ConfigError), refresh_noted(home):
        raise ConfigError("x")
    failed = read((home.path / FILE).read_bytes())
    assert failed["langchain_uno_refresh_exit_code", ""] == 2
    assert failed["langchain_uno_refresh_last_success_timestamp_seconds", ""] == success


def test_without_the_library_a_refresh_writes_nothing_and_a_page_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_uno.metrics.prometheus", None)
    answered({"route": "expert"})
    with refresh_noted(Home(tmp_path)):
        pass
    assert not (tmp_path / FILE).exists()
    with pytest.raises(ConfigError, match=r"langchain-uno\[metrics\]"):
        feedback_app(tmp_path, secret=SECRET, metrics=True)


def test_a_refresh_that_could_not_begin_is_one_that_failed(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", logs(3))
    with refresh_noted(home):
        pass

    def code() -> float:
        return read((home.path / FILE).read_bytes())["langchain_uno_refresh_exit_code", ""]

    assert code() == 0
    with pytest.raises(ConfigError):
        refresh_home(home.root, recipe="no-such-recipe")
    assert code() == ConfigError.exit_code == 2
    rmtree(home.journal)
    with pytest.raises(EmptyLogError):
        refresh_home(home.root)
    assert code() == EmptyLogError.exit_code
    (home.path / FILE).unlink()
    with pytest.raises(EmptyLogError):
        refresh_home(home.root)
    assert not (home.path / FILE).exists()


def test_a_home_whose_name_has_no_text_form_is_refreshed_all_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path / os.fsdecode(b"odd\xff"))
    home.path.mkdir(parents=True)
    with refresh_noted(home) as told:
        told["done"] = True
    assert told["done"] and not (home.path / FILE).exists()
