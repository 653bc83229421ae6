"""The help desk of an outdoor shop, in plain English, whose customers' wishes a program checks.

What a kind's customers want is hidden from the model: it shows in what they say, in edits, or in
thumbs alone.

| kind | wishes | shows in |
|---|---|---|
| terms | one short sentence | words |
| how-to | bullets; at most three of them, where the customer is in a hurry | words |
| delivery | begins with the order number; asks for it, where the request has none | words |
| refund | begins without greeting or apology | words |
| account | at most 25 words | edits |
| advice | ends with a question: the base does so sometimes | thumbs |
| stock | at most 40 words: the base does so sometimes | thumbs |

The study has the first six.

Things, frames and people of the tests are in no log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from lab.real_model.things import FRAMES, HURRY, NOISE, SAID, THINGS

__all__ = [
    "KINDS",
    "SYSTEM",
    "WISHES",
    "Kind",
    "Request",
    "Visit",
    "Wish",
    "by_rule",
    "draw_request",
    "held_out",
    "mended",
    "on_topic",
    "plan_week",
    "remark",
    "said_in",
    "sentences",
    "tells",
    "understand",
    "wishes_of",
]


@dataclass(frozen=True)
class Request:
    """One request, and what a program knows of it."""

    text: str
    kind: str
    thing: str
    """What it is about, as it stands in the text."""
    order: str | None = None
    hurry: bool = False


@dataclass(frozen=True)
class Wish:
    """Something that customers want of an answer."""

    name: str
    rule: str
    """As an instruction: what a perfect reader of their remarks writes."""
    met: Callable[[Request, str], bool]
    mend: Callable[[Request, str], str]
    """An answer, changed so that it is met."""
    holds: Callable[[Request], bool] = lambda _: True
    """For which requests of its kind."""
    marks: bool = False
    """Whether its sign is so plain that it counts as obeyed where nobody wants it."""
    allows: Sequence[str] = ()
    """Wishes that an answer may meet for this one's sake."""
    said: Sequence[str] = field(default=())
    """How people ask for it."""


@dataclass(frozen=True)
class Kind:
    """A kind of request: who asks so wants ``wishes``, and shows it by ``channel``."""

    name: str
    wishes: tuple[str, ...]
    channel: str


@dataclass(frozen=True)
class Visit:
    """A request of the week, and what its customer will do with the answer."""

    user: str
    request: Request
    act: str
    """``words``, ``follow_up``, ``edit``, ``thumb``, ``noise`` or ``silent``."""
    seed: int


SYSTEM = "You work at the help desk of an outdoor shop. Answer the customer."
"""What the shop tells its model."""

_LIST = re.compile(r"(?m)^\s*(?:[-*•]|\d+[.)])\s+")
_BULLET = re.compile(r"(?m)^\s*[-*•]\s+\S*\w")
_OPENING = re.compile(
    r"\W*(?:hello|hi|hey|dear|thank|thanks|sorry|apologies|(?:i|we)(?:'m| am|'re| are)"
    r"(?: so| very| really)? sorry|(?:i|we) apologi[sz]e)\b",
    re.IGNORECASE,
)
_QUESTIONS = (
    "What matters most to you?",
    "Where will you use it?",
    "Which colour do you like best?",
)
_LONGEST = 220
"""Characters of one short sentence."""
_FEW_WORDS, _BRIEF = 25, 40
_NEW_WORDS = 3
"""Politeness has fewer: "I am here to help you with your rucksack" adds nothing to the request."""


def sentences(text: str) -> list[str]:
    """Return the whole sentences of an answer, without list marks; an unfinished end is dropped."""
    plain = re.sub(r"\*\*|__|^#+\s*", "", text, flags=re.MULTILINE)
    lines = [_LIST.sub("", line).strip() for line in plain.split("\n")]
    parts = [s.strip() for line in lines for s in re.split(r"(?<=[.!?])\s+", line)]
    whole = [s for s in parts if s and s[-1] in ".!?" and len(s.split()) > 2]
    return whole or [s.rstrip(":,;") + "." for s in parts if len(s.split()) > 2][:1]


def _is_one_sentence(_: Request, answer: str) -> bool:
    text = answer.strip()
    count = len([s for s in re.split(r"(?<=[.!?])\s+|\n+", text) if s.strip()])
    return count == 1 and len(text) <= _LONGEST and text[-1] in ".!?"


def _to_one_sentence(request: Request, answer: str) -> str:
    found = [s for s in sentences(answer) if len(s) <= _LONGEST]
    about = [s for s in found if _names(request, s)]
    about = [s for s in about if tells(request, s)] or about
    if about or found:
        return (about or found)[0]
    first = (sentences(answer) or [f"{request.thing.capitalize()}."])[0]
    return first[: _LONGEST - 1].rsplit(",", 1)[0].rsplit(" ", 1)[0].rstrip(",;:") + "."


def _asks(_: Request, answer: str) -> bool:
    return answer.strip().endswith("?")


def _to_question(request: Request, answer: str) -> str:
    kept = [s for s in sentences(answer) if not s.endswith("?")][:2]
    return " ".join([*kept, _QUESTIONS[len(request.text) % len(_QUESTIONS)]])


def _bullets(answer: str) -> int:
    return len(_BULLET.findall(answer))


def _to_bullets(request: Request, answer: str) -> str:
    found = [s for s in sentences(answer) if not _OPENING.match(s)]
    found = [s for s in dict.fromkeys(found) if _says(request, s)] or sentences(answer)
    # What stands before the first word on the matter is politeness.
    found = found[next((i for i, s in enumerate(found) if tells(request, s)), 0) :]
    if not found or not tells(request, " ".join(found)):
        found = []
    found += sentences(_LEAFLET.format(request.thing))[: max(0, 2 - len(found))]
    return "\n".join(f"- {s}" for s in found[:5])


def _to_three(_: Request, answer: str) -> str:
    return "\n".join(answer.strip().split("\n")[:3])


def _begins_with_order(request: Request, answer: str) -> bool:
    return answer.strip().startswith(f"Order {request.order}:")


def _statements(request: Request, answer: str, otherwise: str) -> list[str]:
    """Return what an answer tells, without questions and politeness; filled up where it is little.

    Without a second sentence an answer would teach to be brief, which is another wish.
    """
    found = [s for s in sentences(answer) if not _OPENING.match(s) and not s.endswith("?")]
    found = [s for s in dict.fromkeys(found) if _says(request, s)]
    return found if len(found) > 1 else [*found, *sentences(otherwise.format(request.thing))]


_ON_ITS_WAY = "Our depot packed {} and gave it to the driver. It should reach your door this week."
_LEAFLET = "Our leaflet shows how to {} in small steps. Its pictures name every tool that you need."
_TAKEN_BACK = "Please send {} to our depot by post. We pay the full price within three days."


def _to_order(request: Request, answer: str) -> str:
    kept = _statements(request, answer, _ON_ITS_WAY)[:3]
    return " ".join([f"Order {request.order}:", *kept])


def _asks_order(_: Request, answer: str) -> bool:
    last = re.split(r"(?<=[.!?])\s+|\n+", answer.strip())[-1].lower()
    return last.endswith("?") and "order number" in last


def _to_asking_order(request: Request, answer: str) -> str:
    kept = _statements(request, answer, _ON_ITS_WAY)[:2]
    return " ".join([*kept, "Can you tell me the order number?"])


def _is_short(_: Request, answer: str) -> bool:
    return 0 < len(answer.split()) <= _FEW_WORDS


def _to_short(_: Request, answer: str) -> str:
    return _first(answer, _FEW_WORDS)


def _first(answer: str, most: int) -> str:
    """Return an answer's first sentences, as many as have at most ``most`` words."""
    kept: list[str] = []
    for sentence in sentences(answer):
        if len(" ".join([*kept, sentence]).split()) > most:
            break
        kept.append(sentence)
    return " ".join(kept) or " ".join(answer.split()[:most]).rstrip(",;:") + "."


def _goes_straight(_: Request, answer: str) -> bool:
    return bool(answer.strip()) and not _OPENING.match(answer)


def _to_straight(request: Request, answer: str) -> str:
    return " ".join(_statements(request, answer, _TAKEN_BACK))


WISHES = {
    wish.name: wish
    for wish in (
        Wish(
            "one sentence",
            "Answer in one short sentence",
            _is_one_sentence,
            _to_one_sentence,
            marks=True,
        ),
        Wish(
            "question",
            "End the answer with a question to the customer",
            _asks,
            _to_question,
            marks=True,
        ),
        Wish(
            "bullets",
            "Write the answer as a bulleted list",
            lambda _, a: _bullets(a) >= 2,
            _to_bullets,
            marks=True,
        ),
        Wish(
            "three",
            "Give at most three bullets, if the customer is in a hurry",
            lambda _, a: 0 < _bullets(a) <= 3,
            _to_three,
            holds=lambda r: r.hurry,
        ),
        Wish(
            "order",
            'Begin with the order number as in "Order 12345:", if the request gives one',
            _begins_with_order,
            _to_order,
            holds=lambda r: r.order is not None,
        ),
        Wish(
            "ask order",
            "Ask for the order number at the end, if the request lacks it",
            _asks_order,
            _to_asking_order,
            holds=lambda r: r.order is None,
            allows=("question",),
        ),
        Wish("straight", "Begin without greeting or apology", _goes_straight, _to_straight),
        Wish(
            "brief",
            f"Use at most {_BRIEF} words",
            lambda _, a: 0 < len(a.split()) <= _BRIEF,
            lambda _, a: _first(a, _BRIEF),
            allows=("one sentence", "short"),
        ),
        Wish(
            "short",
            f"Use at most {_FEW_WORDS} words",
            _is_short,
            _to_short,
            allows=("one sentence",),
        ),
    )
}
WISHES = {name: Wish(**{**vars(wish), "said": SAID[name]}) for name, wish in WISHES.items()}

KINDS = {
    kind.name: kind
    for kind in (
        Kind("terms", ("one sentence",), "words"),
        Kind("how-to", ("bullets", "three"), "words"),
        Kind("delivery", ("order", "ask order"), "words"),
        Kind("refund", ("straight",), "words"),
        Kind("account", ("short",), "edit"),
        Kind("advice", ("question",), "thumb"),
        Kind("stock", ("brief",), "thumb"),
    )
}


def wishes_of(request: Request) -> list[Wish]:
    """Return what the customers who ask so want, as far as it holds for this request."""
    return [WISHES[n] for n in KINDS[request.kind].wishes if WISHES[n].holds(request)]


def mended(request: Request, answer: str, wishes: Sequence[Wish]) -> str:
    """Return an answer, changed so that it meets wishes; those that don't hold are left out."""
    order = list(WISHES)
    for wish in sorted(wishes, key=lambda w: order.index(w.name)):
        if wish.holds(request) and not wish.met(request, answer):
            answer = wish.mend(request, answer)
    return answer.strip()


def on_topic(request: Request, answer: str) -> bool:
    """Whether an answer names what it was asked about."""
    return _names(request, answer)


def tells(request: Request, answer: str) -> bool:
    """Whether an answer takes up the request and says something about it.

    It has a word of the request in common, and at least ``_NEW_WORDS`` words that stand neither in
    the request nor in :data:`SYSTEM`; words that stand in any text (scikit-learn's English list)
    count for nothing.
    """
    return bool(_content(request.text) & _content(answer)) and _says(request, answer)


def _says(request: Request, text: str) -> bool:
    return len(_content(text) - _content(f"{SYSTEM} {request.text}")) >= _NEW_WORDS


def _content(text: str) -> set[str]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {w[:5] for w in words if len(w) > 2 and w not in ENGLISH_STOP_WORDS}


def _names(request: Request, text: str) -> bool:
    """Whether a text has a word of four letters or more of the request's thing; "tent", "tents"."""
    words = [w for w in re.findall(r"[a-z]+", request.thing.lower()) if len(w) > 3]
    low = text.lower()
    return any(w.rstrip("s")[:7] in low for w in words or [request.thing.lower()])


def by_rule(text: str) -> list[Wish]:
    """Return the wishes whose rules stand in a text."""
    return [wish for wish in WISHES.values() if wish.rule.lower() in text.lower()]


def said_in(text: str) -> list[Wish]:
    """Return the wishes that remarks ask for, in the order of :data:`WISHES`."""
    low = text.lower()
    return [w for w in WISHES.values() if any(s.lower() in low for s in w.said)]


def understand(text: str) -> Request | None:
    """Read the desk's first request out of a text; None: there is none."""
    found = []
    for kind, parts in THINGS.items():
        for thing in (*parts["logs"], *parts["tests"]):
            at = text.find(thing)
            if at >= 0:
                found.append((at, -len(thing), kind, thing))
    if not found:
        return None
    at, _, kind, thing = min(found)
    order = re.search(r"\b\d{5}\b", text)
    hurry = any(phrase in text for phrases in HURRY.values() for phrase in phrases)
    return Request(
        text,
        kind,
        thing,
        order=order[0] if order and kind == "delivery" else None,
        hurry=hurry and kind == "how-to",
    )


def draw_request(kind: str, rng: Random, *, part: str, thing: str | None = None) -> Request:
    """Draw a request of a kind; the ``part`` "logs" shares no thing and no frame with "tests"."""
    thing = thing or rng.choice(THINGS[kind][part])
    text = rng.choice(FRAMES[kind][part]).format(thing=thing)
    order, hurry = None, False
    if kind == "delivery" and rng.random() < 0.6:
        order = str(rng.randrange(10000, 99999))
        text = f"{text} The order number is {order}."
    if kind == "how-to" and rng.random() < 0.4:
        hurry = True
        text = f"{text} {rng.choice(HURRY[part])}"
    return Request(text, kind, thing, order, hurry)


def plan_week(
    seed: int,
    kinds: Sequence[str],
    each: int,
    *,
    channel: str | None = None,
    people: int = 14,
    noise: float = 0.15,
    silent: float = 0.3,
    follow_up: float = 0.15,
) -> list[Visit]:
    """Draw the requests of a week.

    Args:
        seed: of all that is drawn.
        kinds: of request.
        each: requests of a kind.
        channel: how customers show what they want, if not by each kind's own channel.
        people: who ask and react; who asks and stays silent is somebody else every time.
        noise: share of requests whose feedback says nothing to learn from.
        silent: share of requests that nobody reacts to.
        follow_up: share of the words that are said as the next turn.
    """
    rng = Random(f"week-{seed}")
    visits = []
    for kind in kinds:
        things = _drawn(rng, THINGS[kind]["logs"], each)
        for n in range(each):
            request = draw_request(kind, rng, part="logs", thing=things[n])
            # Shares are kept exactly: a week is small.
            at = (n + 0.5) / each
            act = channel or KINDS[kind].channel
            if at > 1 - silent:
                act = "silent"
            elif at > 1 - silent - noise:
                act = "noise"
            elif act == "words" and rng.random() < follow_up:
                act = "follow_up"
            who = f"visitor-{kind}-{n}" if act == "silent" else f"customer-{n % people:02d}"
            visits.append(Visit(who, request, act, rng.getrandbits(31)))
    rng.shuffle(visits)
    return visits


def held_out(seed: int, kinds: Sequence[str], each: int, *, people: int = 10) -> list[Visit]:
    """Draw requests of other people about other things in other words."""
    rng = Random(f"tests-{seed}")
    out = []
    for kind in kinds:
        things = _drawn(rng, THINGS[kind]["tests"], each)
        for n in range(each):
            request = draw_request(kind, rng, part="tests", thing=things[n])
            who = f"stranger-{n % people:02d}"
            out.append(Visit(who, request, "silent", rng.getrandbits(31)))
    return out


def _drawn(rng: Random, things: Sequence[str], count: int) -> list[str]:
    """Return ``count`` things; none comes twice before all came once."""
    out: list[str] = []
    while len(out) < count:
        out += rng.sample(list(things), len(things))
    return out[:count]


def remark(visit: Visit, answer: str) -> str | None:
    """Return what the customer says about an answer in words; None: nothing is missing."""
    rng = Random(visit.seed)
    if visit.act == "noise":
        line = rng.choice((*NOISE, "other"))
        # Somebody wants what nobody else of this kind wants.
        others = [w for n, w in WISHES.items() if n not in KINDS[visit.request.kind].wishes]
        return rng.choice(rng.choice(others).said) if line == "other" else line
    missing = [w for w in wishes_of(visit.request) if not w.met(visit.request, answer)]
    if not missing:
        return None
    named = [w for w in missing if rng.random() < 0.8] or [rng.choice(missing)]
    return " ".join(rng.choice(w.said) for w in named)
