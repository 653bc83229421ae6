"""Two tenants on one engine and one home: each way the API offers to reach the other's, tried."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.errors import EngineError, NameError_
from langchain_uno.graphs.respond import RespondContext
from langchain_uno.home import Home
from langchain_uno.logs.journal import Journal
from langchain_uno.models.embedders import TokenEmbedder
from langchain_uno.models.local import LocalEngine
from langchain_uno.web.feedback import FeedbackTokens, TokenError
from tests.unit_tests.serving.tiny_release import QUERIES, publish_tiny

ASK = QUERIES["c0"]


@pytest.fixture
def tenants(
    engine: LocalEngine, embedder: TokenEmbedder, tmp_path: Path, adapter_paths: dict[str, Path]
) -> dict[str, Any]:
    top = tmp_path / "home"
    releases = {}
    for tenant, adapter in (("ours", "c0"), ("theirs", "c1")):
        home = Home.locate(top, tenant)
        home.ensure()
        weights = {"c0": adapter_paths[adapter]}
        routes: Any = {"c0": "expert"}
        releases[tenant] = publish_tiny(home, engine, embedder, weights, routes=routes)
    models = {
        tenant: UNOChatModel(home=top, namespace=tenant, engine=engine, max_tokens=8)
        for tenant in releases
    }
    answers = {tenant: model.invoke(ASK) for tenant, model in models.items()}
    assert answers["ours"].content != answers["theirs"].content, "they can be told apart"
    return {"home": top, "releases": releases, "models": models, "answers": answers}


def test_no_way_leads_to_the_other_tenant(tenants: dict[str, Any], engine: LocalEngine) -> None:
    model: Any = tenants["models"]["ours"]
    mine, foreign = (tenants["answers"][t] for t in ("ours", "theirs"))
    theirs = tenants["releases"]["theirs"]
    name = f"{theirs}-c0-expert"
    assert name in engine.adapters(), "it is loaded, and still out of reach"
    claims: dict[str, Any] = {
        "namespace": "theirs",
        "release": theirs,
        "adapter": name,
        "cluster": "c0",
        "route": "expert",
        "model": name,
        "model_name": name,
        "lora": name,
        "home": str(tenants["home"] / "namespaces" / "theirs"),
        "thread_id": "theirs",
        "user_id": "theirs",
    }
    claimed = AIMessage("before", response_metadata=claims, additional_kwargs=claims)
    tries: dict[str, Any] = {
        "one by one": [model.invoke(ASK, **{k: v}) for k, v in claims.items()],
        "at once": [model.invoke(ASK, **claims)],
        "bound": [model.bind(**claims).invoke(ASK)],
        "configurable": [model.invoke(ASK, {"configurable": claims})],
        "metadata": [model.invoke(ASK, {"metadata": claims, "tags": [theirs, name]})],
        "streamed": [reduce(add, model.stream(ASK, **claims))],
        "stop and seed": [model.bind(seed=1, stop=[name]).invoke(ASK)],
        "copied": [model.model_copy(update={"metadata": claims}).invoke(ASK)],
    }
    for what, got in tries.items():
        for answer in got:
            assert answer.content == mine.content, what
            assert answer.response_metadata["release"] == tenants["releases"]["ours"], what
    talk = [HumanMessage(ASK), claimed, HumanMessage(ASK)]
    told = model.invoke(talk).response_metadata
    assert told["release"] == tenants["releases"]["ours"]
    assert told["adapter"] in (None, mine.response_metadata["adapter"])
    assert foreign.content not in [a.content for got in tries.values() for a in got]


def test_a_state_written_from_outside_names_no_adapter(tenants: dict[str, Any]) -> None:
    served = tenants["models"]["ours"].served
    theirs = tenants["releases"]["theirs"]
    evil = {"route": "expert", "adapter": f"{theirs}-c0-expert", "cluster": "c0"}
    ask = {"messages": [{"role": "user", "content": ASK}]}
    context = RespondContext(max_tokens=8, stream=False)
    out = served.graph.invoke({**ask, **evil, "release": theirs}, context=context)
    assert out["release"] == tenants["releases"]["ours"]
    assert out["answer"] == tenants["answers"]["ours"].content
    # past the first node, as a server's update_state(as_node=...) would
    node = served.graph.nodes["expert_generate"].bound
    config: Any = _runtime(context)
    mine = node.invoke({**ask, **evil, "release": tenants["releases"]["ours"]}, config)
    assert mine["answer"] == tenants["answers"]["ours"].content
    with pytest.raises(EngineError, match="no more"):
        node.invoke({**ask, **evil, "release": theirs}, config)


def _runtime(context: RespondContext) -> Any:
    from langgraph.runtime import Runtime

    return {"configurable": {"__pregel_runtime": Runtime(context=context)}}


@pytest.mark.parametrize(
    "name",
    ["../theirs", "theirs/", "theirs/../theirs", "namespaces/theirs", "..", "", "Theirs", "t\x00",
     "./theirs", "theirs\n", "%2e%2e", "theirs.", " theirs", "/etc"],
)  # fmt: skip
def test_names_that_are_paths_are_refused(tenants: dict[str, Any], name: str) -> None:
    with pytest.raises(NameError_):
        UNOChatModel(home=tenants["home"], namespace=name).invoke(ASK)
    with pytest.raises(NameError_):
        UNOFeedbackHandler(home=tenants["home"], namespace=name)


def test_feedback_and_tokens_stay_with_their_tenant(tenants: dict[str, Any]) -> None:
    top = tenants["home"]
    handlers = {t: UNOFeedbackHandler(home=top, namespace=t) for t in ("ours", "theirs")}
    answer = tenants["models"]["theirs"].invoke(ASK, {"callbacks": [handlers["theirs"]]})
    handlers["ours"].feedback(answer.id, score=0, comment="planted")
    for handler in handlers.values():
        handler.close()
    with Journal(Home.locate(top, "theirs").journal, readonly=True) as journal:
        assert journal.feedback() == []
        assert len(list(journal.rows())) == 1
    with Journal(Home.locate(top, "ours").journal, readonly=True) as journal:
        assert len(list(journal.rows())) == 0, "their answer is not here"
    tokens = FeedbackTokens("s" * 40)
    token = tokens.sign(answer.id, namespace="theirs")
    with pytest.raises(TokenError, match="another namespace"):
        tokens.verify(token, namespace="ours")


def test_a_release_copied_over_does_not_share_an_adapter(
    tenants: dict[str, Any], engine: LocalEngine
) -> None:
    """Whoever can write our folder can copy; what is served then is our own copy."""
    import shutil

    top, theirs = tenants["home"], tenants["releases"]["theirs"]
    shutil.copytree(
        Home.locate(top, "theirs").releases / theirs, Home.locate(top, "ours").releases / theirs
    )
    shutil.copyfile(Home.locate(top, "theirs").traffic, Home.locate(top, "ours").traffic)
    model = tenants["models"]["ours"]
    before = set(engine.adapters())
    told = model.invoke(ASK).response_metadata
    assert told["release"] == theirs
    assert model.served.serving.refusal is None
    own = set(engine.adapters()) - before
    assert own and all(name.startswith(f"{theirs}-") for name in own)
    tenants["models"]["theirs"].served.serving.close()
    assert own <= set(engine.adapters())


def test_a_model_of_no_namespace_sees_the_default_one_only(
    tenants: dict[str, Any], engine: LocalEngine
) -> None:
    plain = UNOChatModel(home=tenants["home"], engine=engine, max_tokens=8)
    assert plain.invoke(ASK).response_metadata["release"] is None
