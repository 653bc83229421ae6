"""Ten homes of different histories: after a person is forgotten no file has a byte of theirs."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import RunnableConfig, RunnableLambda

from langchain_uno import UNOFeedbackHandler
from langchain_uno.erasure import forget, forget_older
from langchain_uno.errors import ReleaseError
from langchain_uno.home import Home
from langchain_uno.logs.exchange import export_lines, import_file
from langchain_uno.logs.join import join, read
from langchain_uno.logs.journal import Journal
from langchain_uno.logs.store import LogStore
from langchain_uno.records import Cluster, Feedback, Interaction, Message
from langchain_uno.releases.load import load_release, read_current
from langchain_uno.releases.publish import make_current, publish, rollback
from langchain_uno.releases.traffic import Share, Traffic, read_traffic, write_traffic
from tests.unit_tests.learning.toy_language import ToyEmbedder, log
from tests.unit_tests.releases.samples import draft, write_adapter

WORDS = "my cat Zanzibarquagga ran away"
"""What the person says; no other person does."""
WHO = "petronella-17"
NEEDLES = ("zanzibarquagga", "petronella")


@dataclass
class Story:
    """A home with a history, whom to forget, and what learnt from them."""

    home: Home
    forget: dict[str, Any] = field(default_factory=lambda: {"user_id": WHO})
    learnt: list[str] = field(default_factory=list)
    sound: list[str] = field(default_factory=list)
    current: str | None = None
    """What answers afterwards; None: the base model."""
    stay: Sequence[str] = ()
    """Runs of others that must stay."""
    after: Callable[[], object] = lambda: None
    """What still happens after the erasure, and must leave nothing either."""


def write(home: Home, *records: Interaction | Feedback) -> None:
    with Journal(home.journal) as journal:
        for one in records:
            if isinstance(one, Feedback):
                journal.append_feedback(one)
            else:
                journal.append_interaction(one)


def release(home: Home, *run_ids: str, rule: str = WORDS, **more: Any) -> str:
    """Publish a release that learnt from these logs; its rules and notes have words of theirs."""
    folder = home.path.parent / f"adapter-{uuid4().hex}"
    one = Cluster(id="c0", size=1, run_ids=list(run_ids), route="expert", rules=[rule], note=rule)
    made = draft().model_copy(update={"clusters": [one]})
    try:
        centre = np.ones((1, 5), dtype=np.float32)
        return publish(home, made, {"c0": write_adapter(folder)}, centre, **more)
    finally:
        shutil.rmtree(folder)


def learn(home: Home) -> None:
    """Bring everything into index and caches, and leave a refresh under way."""
    with LogStore.open(home, ToyEmbedder()) as store:
        store.drain()
        logs = store.interactions()
    work = home.work / "refresh-0123456789abcdef"
    work.mkdir(exist_ok=True)
    text = "\n".join(one.model_dump_json() for one in logs)
    (work / "distilled.jsonl").write_text(text, encoding="utf-8")
    known = {"logs": {one.run_id: {} for one in logs}, "unheard": []}
    (work / "snapshot.json").write_text(json.dumps(known), encoding="utf-8")
    rows = [
        {"key": one.run_id, "rules": {"run_id": one.run_id, "said": one.feedback_turns}}
        for one in logs
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    (home.work / "distilled.jsonl").write_text(lines + "\n{cut sho", encoding="utf-8")


def turn(run_id: str, *texts: str, answer: str = "so be it, then", **more: Any) -> Interaction:
    """A request whose messages alternate between user and assistant."""
    roles = ("user", "assistant")
    messages = [Message(role=roles[n % 2], content=t) for n, t in enumerate(texts)]  # type: ignore[arg-type]
    return Interaction(run_id=run_id, messages=messages, answer=answer, **more)


# -- histories -------------------------------------------------------------------------------------


def asked(home: Home) -> Story:
    """They asked and commented; a second release kept the module that they taught."""
    write(home, log("p1", WORDS, f"poor {WORDS}", f"please {WORDS}", user_id=WHO, thread_id="t"))
    write(home, log("o1", "what is the time", "noon", "thanks a lot for it", user_id="ola"))
    before = release(home, "o1", rule="Greet.")
    first = release(home, "p1")
    second = release(home, "o1", rule="Greet.", taught={"c0": lineage_of(home, first)})
    learn(home)
    return Story(home, learnt=[first, second], sound=[before], current=before, stay=["o1"])


def lineage_of(home: Home, release_id: str) -> list[str]:
    return load_release(home, release_id).manifest.lineage


def commented(home: Home) -> Story:
    """They only commented on somebody's answer, and the app put the comment into a later request.

    Reported: getsentry/sentry #60113 (who gave feedback asks for its deletion).
    """
    write(home, turn("o1", "what is the time", user_id="ola", thread_id="t"))
    write(home, Feedback(run_id="o1", comment=WORDS, user_id=WHO))
    quoted = f"A reviewer said: {WORDS}. Answer again."
    write(home, turn("o2", quoted, user_id="ola", thread_id="t"))
    write(home, turn("o3", "another thing", user_id="ola", thread_id="t"))
    learnt = release(home, "o1", "o3")
    learn(home)
    return Story(home, learnt=[learnt], stay=["o1", "o3"])


def edited_and_liked(home: Home) -> Story:
    """They edited one answer and liked another; the like has no words, only an id.

    Reported: vstorm-co/agenticos #1421 (ratings of a deleted user stay behind).
    """
    write(home, log("o1", "what is the time", "noon", user_id="ola"))
    write(home, log("o2", "where is the quay", "north", user_id="ola"))
    write(home, log("o3", "who is there", "nobody", "thanks a lot", user_id="ola"))
    write(home, Feedback(run_id="o1", key="correction", correction=WORDS, user_id=WHO))
    write(home, Feedback(run_id="o2", key="like", score=1.0, user_id=WHO))
    edit, like = release(home, "o1"), release(home, "o2", rule="Greet.")
    sound = release(home, "o3", rule="Greet.")
    learn(home)
    return Story(home, learnt=[edit, like], sound=[sound], current=sound, stay=["o1", "o2", "o3"])


def anonymous(home: Home) -> Story:
    """Nobody is named; a thread is forgotten, with feedback that names its root run."""
    root = str(uuid4())
    write(home, turn("p1", WORDS, thread_id=f"thread-{WHO}", root_run_id=root))
    write(home, Feedback(run_id=root, comment=f"not so, {WORDS}"))
    write(home, turn("o1", "hello there", answer="hello, you", thread_id="other"))
    learnt, sound = release(home, "p1"), release(home, "o1", rule="Greet.")
    make_current(home, learnt)
    learn(home)
    return Story(home, {"thread_id": f"thread-{WHO}"}, [learnt], [sound], stay=["o1"])


def traces(home: Home) -> Story:
    """The app names the user at one call of a trace alone: a title, a guard, a batch.

    Shape: langchain-ai/langchain #37373 (metadata reaches some calls only).
    """
    model = FakeListChatModel(responses=["fine by me"])

    def app(question: str, config: RunnableConfig) -> None:
        model.invoke(question, config={**config, "metadata": {"user_id": WHO}})
        bare: RunnableConfig = {"callbacks": config["callbacks"]}
        model.invoke(f"Write a title for: {question}", config=bare)
        model.invoke("Is this harmful? Answer yes or no.", config=bare)

    def batch(questions: dict[str, str], config: RunnableConfig) -> None:
        for who, question in questions.items():
            model.invoke(question, config={**config, "metadata": {"user_id": who}})
        bare: RunnableConfig = {"callbacks": config["callbacks"]}
        model.invoke(f"Sum up: {'; '.join(questions.values())}", config=bare)

    with UNOFeedbackHandler(home=home.path) as handler:
        RunnableLambda(app).invoke(WORDS, config={"callbacks": [handler]})
        both = {WHO: f"{WORDS} again", "ola": "what is the time"}
        RunnableLambda(batch).invoke(both, config={"callbacks": [handler]})
        # A summary outside any trace of theirs, without a name.
        model.invoke(f"Summarize. Human: {WORDS}", config={"callbacks": [handler]})
    with Journal(home.journal) as journal:
        logs = list(read(journal, join(journal)))
    learnt = release(home, *(one.run_id for one in logs if "title" in one.query))
    learn(home)
    stay = [one.run_id for one in logs if one.user_id == "ola"]
    assert len(stay) == 1
    return Story(home, learnt=[learnt], stay=stay)


def long_ids(home: Home) -> Story:
    """Ids longer than what is kept, and ids that are e-mail addresses."""
    who = f"{WHO}@mail.example/" + "x" * 300
    model = FakeListChatModel(responses=["fine by me"])
    with UNOFeedbackHandler(home=home.path) as handler:
        config: RunnableConfig = {"callbacks": [handler], "metadata": {"user_id": who}}
        model.invoke(WORDS, config=config)
    with Journal(home.journal) as journal:
        [run] = [row.run_id for row in journal.rows()]
    learnt = release(home, run)
    learn(home)
    return Story(home, {"user_id": who}, [learnt])


def under_way(home: Home) -> Story:
    """One run is not over yet and another waits in memory, since the journal was locked."""
    handler = UNOFeedbackHandler(home=home.path)
    model = FakeListChatModel(responses=["fine by me"])
    write(home, log("p1", WORDS, "so be it", user_id=WHO, thread_id="t"))
    learnt = release(home, "p1")
    learn(home)
    named = {"user_id": WHO}
    open_run = uuid4()
    handler.on_chat_model_start({}, [[HumanMessage(WORDS)]], run_id=open_run, metadata=named)
    lock = Journal(home.journal)
    lock.database.write(lambda db: db.execute("BEGIN IMMEDIATE"))
    model.invoke(WORDS, config={"callbacks": [handler], "metadata": named})
    lock.database.write(lambda db: db.execute("ROLLBACK"))
    lock.close()
    assert handler.stats()["waiting"] == 1

    def later() -> None:
        said = LLMResult(generations=[[ChatGeneration(message=AIMessage(WORDS))]])
        handler.on_llm_end(said, run_id=open_run)
        handler.flush()
        assert handler.stats()["waiting"] == 0
        handler.close()

    return Story(home, learnt=[learnt], after=later)


def changed_feedback(home: Home) -> Story:
    """A vote that a later version names them for, one they gave first, one for an unknown run."""
    write(home, log("o1", "what is the time", "noon", user_id="ola"))
    write(home, log("o2", "where is the quay", "north", user_id="ola"))
    write(home, Feedback(feedback_id="f1", run_id="o1", comment=WORDS))
    write(home, Feedback(feedback_id="f1", run_id="o1", comment=WORDS, user_id=WHO))
    write(home, Feedback(feedback_id="f2", run_id="o2", comment=WORDS, user_id=WHO))
    write(home, Feedback(feedback_id="f2", run_id="o2", comment=WORDS))
    write(home, Feedback(run_id="resp_0123", comment=WORDS, user_id=WHO))
    one, two = release(home, "o1"), release(home, "o2")
    learn(home)
    return Story(home, learnt=[one, two], stay=["o1", "o2"])


def retained(home: Home) -> Story:
    """Retention took their logs long ago; the releases that learnt from them are still there."""
    old = datetime.now(timezone.utc) - timedelta(days=100)
    write(home, turn("p1", WORDS, user_id=WHO, thread_id="t", created_at=old))
    write(home, turn("o1", "what is the time", user_id="ola", created_at=old))
    write(home, Feedback(run_id="o1", comment=WORDS, user_id=WHO, created_at=old))
    write(home, turn("o2", "where is the quay", user_id="ola"))
    asked, heard = release(home, "p1"), release(home, "o1")
    sound = release(home, "o2", rule="Greet.")
    learn(home)
    assert forget_older(home, days=30)["interactions"] == 2
    learn(home)
    return Story(home, learnt=[asked, heard], sound=[sound], current=sound, stay=["o2"])


def imported(home: Home) -> Story:
    """Dialogs came from a file, and an old export is imported again in other forms."""
    said = [
        {"role": "user", "content": WORDS},
        {"role": "assistant", "content": "I am sorry to hear that."},
        {"role": "user", "content": f"no, {WORDS}"},
        {"role": "assistant", "content": "Noted."},
    ]
    file = home.path.parent / "in.jsonl"
    at = "2026-03-01T10:00:00.250000+00:00"
    row = {"messages": said, "user_id": WHO, "session": "s1", "created_at": at}
    file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert import_file(file, home).interactions == 2
    exported = list(export_lines(home))
    learnt = release(home, *(json.loads(line)["run_id"] for line in exported))
    learn(home)

    def again() -> None:
        own = json.loads(exported[0])
        bare = {k: v for k, v in own.items() if k not in ("run_id", "root_run_id")}
        forms = [
            own,
            {**bare, "run_id": "other"},
            {**own, "run_id": "other", "user_id": "Petronella 17"},
            {"messages": said, "user_id": WHO},
            {"messages": said},
            {"messages": said[:2], "created_at": 1772359200},
            {"messages": said[:2], "user_id": "p.17", "created_at": 1772359200250},
        ]
        for form in forms[:-1]:  # the last one's time is another importer's to read
            file.write_text(json.dumps(form) + "\n", encoding="utf-8")
            done = import_file(file, home)
            assert (done.interactions, done.bad) == (0, []), form
        file.unlink()

    return Story(home, learnt=[learnt], after=again)


def remains(home: Home) -> Story:
    """Kills and hands left things behind; the release has a tenth of the traffic."""
    write(home, log("p1", WORDS, "so be it", user_id=WHO))
    write(home, log("o1", "what is the time", "noon", user_id="ola"))
    sound = release(home, "o1", rule="Greet.")
    learnt = release(home, "p1")
    shares = [Share(release=r, share=s, manifest_sha256=sha(home, r)) for r, s in
              ((sound, 0.9), (learnt, 0.1))]  # fmt: skip
    write_traffic(home, Traffic(shares=tuple(shares)))
    learn(home)
    shutil.copytree(home.releases / learnt, home.releases / f".new-1-{learnt}")
    shutil.copytree(home.releases / learnt, home.releases / "rcopy")
    (home.releases / "rcopy" / "manifest.json").unlink()
    shutil.copytree(home.releases / learnt, home.releases / "by hand (old)")
    aside = home.chroma.with_name("chroma.old-1-1")
    aside.mkdir()
    for name in (aside / "chroma.sqlite3", home.work / ".distilled.jsonl.1"):
        name.write_text(WORDS, encoding="utf-8")
    (home.work / "vectors.damaged").write_text(WORDS, encoding="utf-8")
    return Story(home, learnt=[learnt], sound=[sound], current=sound, stay=["o1"])


def sha(home: Home, release_id: str) -> str:
    raw = (home.releases / release_id / "manifest.json").read_bytes()
    return hashlib.sha256(raw).hexdigest()


def shared_thread(home: Home) -> Story:
    """Others write in the same conversation: their requests repeat its history, or a part of it.

    Reported: n8n-io/n8n #38461 and VoltAgent/voltagent #1384 (one thread, many users),
    RocketChat/Rocket.Chat #9766 (an erased user's words stay in shared rooms).
    """
    answer = "I am sorry to hear that."
    write(home, turn("p1", WORDS, answer=answer, user_id=WHO, thread_id="t"))
    history = turn("o1", WORDS, answer, "me too, mine is grey", user_id="ola", thread_id="t")
    inline = turn("o2", f"> {WORDS}\nsee above, is it serious?", user_id="ola", thread_id="t")
    system = turn("o3", "and now?", user_id="ola", thread_id="t")
    system.messages.insert(0, Message(role="system", content=f"Memory: {WORDS}"))
    tool = turn("o4", "call her then", user_id="ola", thread_id="t")
    tool.tool_calls = [{"name": "note", "args": {"text": f"said {WORDS}"}, "id": "1"}]
    echo = turn("o5", "what did she say?", answer=f"She said: {WORDS}", user_id="ola")
    echo.thread_id = "t"
    apart = turn("o6", "what is the time", user_id="ola", thread_id="t")
    alone = turn("o7", "where is the quay", user_id="ola", thread_id="u")
    write(home, history, inline, system, tool, echo, apart, alone)
    write(home, Feedback(run_id="o6", comment=f"as she said, {WORDS}", user_id="ola"))
    learnt, heard = release(home, "o1"), release(home, "o6")
    sound = release(home, "o7", rule="Greet.")
    learn(home)
    return Story(home, learnt=[learnt, heard], sound=[sound], current=sound, stay=["o6", "o7"])


STORIES = (
    asked,
    commented,
    edited_and_liked,
    anonymous,
    traces,
    long_ids,
    under_way,
    changed_feedback,
    retained,
    imported,
    remains,
    shared_thread,
)


# -- what must hold --------------------------------------------------------------------------------


def traces_in(root: Path) -> list[str]:
    """Return the files of a home that have a byte of the person's words or ids."""
    found = []
    for path in sorted(root.rglob("*")):
        content = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        if any(needle in content.lower() for needle in (n.encode() for n in NEEDLES)):
            found.append(str(path.relative_to(root)))
    return found


def tree(root: Path) -> dict[str, bytes]:
    """Return what lies in work, index and releases."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for part in ("work", "chroma", "releases")
        for path in sorted((root / part).rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


@pytest.mark.parametrize(
    ("history", "namespace"),
    [*((history, "default") for history in STORIES), (asked, "tenant-b")],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_no_trace_stays_and_no_release_that_learnt_serves(
    history: Callable[[Home], Story], namespace: str, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home", namespace).ensure()
    story = history(home)
    assert traces_in(home.root), "there was something to forget"
    before = read_traffic(home)
    assert before is not None and {s.release for s in before.shares} <= {
        *story.learnt,
        *story.sound,
    }

    receipt = forget(home, **story.forget)
    assert receipt["found"] and receipt["finished"]
    assert receipt["releases_tainted"] >= len(story.learnt)
    story.after()
    assert traces_in(home.root) == []

    for one in story.learnt:
        for use in (load_release, make_current, rollback):
            with pytest.raises(ReleaseError, match="revoked"):
                use(home, one)
    for one in story.sound:
        assert load_release(home, one).manifest.clusters[0].rules == ["Greet."]
    current = read_current(home)
    assert (current.id if current else None) == story.current
    with Journal(home.journal) as journal:
        left = {row.run_id for row in journal.rows()}
    assert left == set(story.stay)
    cached = home.work / "distilled.jsonl"
    known = [json.loads(line)["key"] for line in cached.read_text().splitlines()]
    assert set(known) <= set(story.stay)

    # There is nobody any more: another call changes nothing.
    learn(home)
    then = tree(home.path)
    again = forget(home, **story.forget)
    assert (again["found"], again["interactions"], again["feedback"]) == (False, 0, 0)
    assert tree(home.path) == then


def test_feedback_by_an_answers_other_name_goes_and_stays_away(tmp_path: Path) -> None:
    """The provider's message id is a name of the answer: langchain-ai/langchain #39233."""
    home = Home(tmp_path).ensure()
    mine = turn("p1", WORDS, user_id=WHO, message_ids=["resp_77"])
    write(home, mine, turn("o1", "what is the time", user_id="ola", message_ids=["resp_78"]))
    for name in ("resp_77", "resp_78"):
        write(home, Feedback(run_id=name, comment=f"so says petronella of {name}", user_id="ola"))
    receipt = forget(home, run_ids=["resp_77"])
    assert (receipt["interactions"], receipt["feedback"]) == (1, 1)
    with Journal(home.journal) as journal:
        assert not journal.append_feedback(Feedback(run_id="resp_77", comment=WORDS))
        assert journal.append_feedback(Feedback(run_id="resp_78", comment="thanks"))
        assert len(join(journal).feedback["o1"]) == 2
        assert journal.names() == {"resp_78": "o1"}


def test_a_name_that_comes_after_its_run_was_forgotten_is_not_kept(tmp_path: Path) -> None:
    """A graph ends after the erasure, and its app names the messages by who asked."""
    home = Home(tmp_path).ensure()
    root, first, second = uuid4(), uuid4(), uuid4()
    named = {"user_id": WHO}
    with UNOFeedbackHandler(home=tmp_path) as handler:
        handler.on_chain_start({}, {"messages": [HumanMessage(WORDS)]}, run_id=root, metadata=named)
        for run, answer in ((first, "so be it"), (second, "or not")):
            more: dict[str, Any] = {"run_id": run, "parent_run_id": root}
            handler.on_chat_model_start({}, [[HumanMessage(WORDS)]], metadata=named, **more)
            said = LLMResult(generations=[[ChatGeneration(message=AIMessage(answer))]])
            handler.on_llm_end(said, **more)
        assert forget(home, user_id=WHO)["interactions"] == 2
        shown = AIMessage("or not", id=f"msg-{WHO}")
        handler.on_chain_end({"messages": [HumanMessage(WORDS), shown]}, run_id=root)
    assert traces_in(home.root) == []
    with Journal(home.journal) as journal:
        assert journal.names() == {}
        assert journal.database.read("SELECT * FROM changes") == []


def test_whoever_gave_feedback_first_is_known_after_retention(tmp_path: Path) -> None:
    """A later version of the feedback names nobody; the release learnt from the first."""
    home = Home(tmp_path).ensure()
    old = datetime.now(timezone.utc) - timedelta(days=100)
    write(home, turn("o1", "what is the time", user_id="ola", created_at=old))
    given = Feedback(feedback_id="f", run_id="o1", comment=WORDS, user_id=WHO, created_at=old)
    later = {"user_id": None, "comment": "in short", "created_at": old + timedelta(seconds=1)}
    write(home, given, given.model_copy(update=later))
    learnt = release(home, "o1")
    forget_older(home, days=30)
    assert load_release(home, learnt)
    assert forget(home, user_id=WHO)["releases_tainted"] == 1
    assert traces_in(home.root) == []


def test_a_run_that_begins_afterwards_is_recorded_anew(tmp_path: Path) -> None:
    home = Home(tmp_path).ensure()
    model = FakeListChatModel(responses=["fine by me"])
    with UNOFeedbackHandler(home=tmp_path) as handler:
        assert not forget(home, user_id=WHO)["found"]
        config: RunnableConfig = {"callbacks": [handler], "metadata": {"user_id": WHO}}
        model.invoke(WORDS, config=config)
    with Journal(home.journal) as journal:
        assert [row.user_id for row in journal.rows()] == [WHO]


def test_runs_that_end_while_somebody_is_forgotten_never_stay(tmp_path: Path) -> None:
    """Threads go on capturing; what began before the erasure is gone, whenever it ended."""
    home = Home(tmp_path).ensure()
    handler = UNOFeedbackHandler(home=tmp_path)
    begun = threading.Barrier(5)
    may_end = threading.Event()

    def one_run(n: int) -> None:
        run_id = UUID(int=n + 1)
        named = {"user_id": WHO if n % 2 else "ola"}
        handler.on_chat_model_start({}, [[HumanMessage(WORDS)]], run_id=run_id, metadata=named)
        begun.wait()
        may_end.wait(0.001 * n)
        said = LLMResult(generations=[[ChatGeneration(message=AIMessage("so be it"))]])
        handler.on_llm_end(said, run_id=run_id)

    threads = [threading.Thread(target=one_run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    forget(home, user_id=WHO)
    may_end.set()
    for thread in threads:
        thread.join()
    handler.close()
    with Journal(home.journal) as journal:
        assert {row.user_id for row in journal.rows()} == {"ola"}


def test_equal_words_of_others_stay(tmp_path: Path) -> None:
    """What somebody else asks in a conversation of their own is theirs, be it the same words."""
    home = Home(tmp_path).ensure()
    write(home, turn("p1", "do you ship to Norway?", answer="yes, we do", user_id=WHO))
    write(home, turn("o1", "do you ship to Norway?", answer="yes, we do", user_id="ola"))
    write(home, turn("o2", "do you ship to Norway?", answer="yes, we do", thread_id="visitor"))
    write(home, turn("o3", "thanks", answer="yes, we do", user_id="ola"))
    write(home, Feedback(run_id="o3", comment="thanks", user_id=WHO))
    forget(home, user_id=WHO)
    with Journal(home.journal) as journal:
        assert {row.run_id for row in journal.rows()} == {"o1", "o2", "o3"}
    rows = [
        {
            "messages": [
                {"role": "user", "content": "do you ship to Norway?"},
                {"role": "assistant", "content": "yes, we do"},
            ],
            "user_id": "nils",
            "feedback": ["thanks"],
        }
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = import_file(file, home)
    assert (done.interactions, done.feedback, done.forgotten) == (1, 1, 0)


def test_short_words_come_back_under_no_forgotten_name(tmp_path: Path) -> None:
    home = Home(tmp_path).ensure()
    write(home, turn("p1", "Hi", answer="Hello!", user_id=WHO, thread_id="t"))
    forget(home, user_id=WHO)
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    file = tmp_path / "in.jsonl"
    for names, came in (({"user_id": WHO}, 0), ({"thread_id": "t"}, 0), ({}, 1)):
        file.write_text(json.dumps({"messages": said, **names}) + "\n", encoding="utf-8")
        assert import_file(file, home).interactions == came, names


def test_retention_keeps_what_was_distilled_of_others_and_refreshes_without_the_old(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path).ensure()
    old = datetime.now(timezone.utc) - timedelta(days=100)
    write(home, turn("p1", WORDS, user_id=WHO, created_at=old))
    write(home, turn("o1", "what is the time", user_id="ola"))
    learn(home)
    new = home.work / "refresh-fedcba9876543210"
    new.mkdir()
    (new / "snapshot.json").write_text(json.dumps({"logs": {"o1": {}}, "unheard": []}))
    forget_older(home, days=30)
    assert [p.name for p in home.work.glob("refresh-*")] == ["refresh-fedcba9876543210"]
    kept = [json.loads(line)["key"] for line in (home.work / "distilled.jsonl").open()]
    assert kept == ["o1"]
    assert traces_in(tmp_path) == []
