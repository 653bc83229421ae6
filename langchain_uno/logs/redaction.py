"""Takes personal data out of text before it is stored. What was taken is counted, never kept.

Phone numbers by phonenumbers, IP addresses by the standard library, cards and IBANs by their check
digits, e-mail and secrets by their forms; ``lab/results/redaction.md`` compares them with other
libraries. Any function from text to matches, LangChain's too, can stand beside them or in their
place::

    redact = Redactor({"email": detect_email, "order": lambda text: [...]})
    redact("mail me at a@b.org")      # ("mail me at [REDACTED_EMAIL]", {"email": 1})

A plain run of digits is a phone number only where its form or the word before it says so, and a
word after "password is" is a secret only where it looks like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address
from typing import Any

from langchain_uno.errors import ConfigError
from langchain_uno.home import Home, load_settings
from langchain_uno.messages import map_texts
from langchain_uno.records import Feedback, Interaction

DEFAULT_KINDS = ("email", "credit_card", "iban", "ip", "phone", "secret")


Detector = Callable[[str], Sequence[Any]]
"""From a text to its matches: mappings with ``start`` and ``end``."""
_Spans = list[tuple[int, int]]

_MEMORY = 128
_MEMORY_CHARS = 20_000


_WORDS = {"content", "name", "tool_calls", "tool_call_id", "asked", "answer", "error", "tags",
          "key", "value", "comment", "correction", "source"}  # fmt: skip
"""Fields of interactions, messages and feedback in which people's words may stand."""
_PEOPLE = {"user_id", "thread_id", "feedback_id"}
_REFERENCES = {"run_id", "root_run_id", "message_ids", "model", "release", "canary", "cluster",
               "adapter"}  # fmt: skip
"""What names an interaction, and what answered it."""


class Redactor:
    """Callable: text -> (text without personal data, counts by kind). Thread-safe.

    Args:
        detectors: kind -> detector; None: those of :data:`DEFAULT_KINDS`.
    """

    def __init__(self, detectors: Mapping[str, Detector] | None = None) -> None:
        self._detectors = _default_detectors() if detectors is None else dict(detectors)
        for kind in self._detectors:
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", kind):
                raise ValueError(f"A kind of redaction is a short lower-case word, not {kind!r}.")
        # A conversation is redacted again at each of its turns: remember the last texts' results.
        self._seen: dict[str, tuple[str, dict[str, int]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: no text that was seen."""
        return {"_detectors": self._detectors, "_seen": {}}

    def __call__(self, text: str) -> tuple[str, dict[str, int]]:
        """Return the redacted text and how much was taken out, by kind."""
        found = self._seen.get(text)
        if found is None:
            found = self._redact(text)
            if len(text) <= _MEMORY_CHARS:
                if len(self._seen) >= _MEMORY:
                    self._seen = {}
                self._seen[text] = found
        return found

    def _redact(self, text: str) -> tuple[str, dict[str, int]]:
        spans: list[tuple[int, int, str]] = []
        for kind, detect in self._detectors.items():
            spans += [(int(m["start"]), int(m["end"]), kind) for m in detect(text)]
        spans.sort(key=lambda span: (span[0], -span[1]))
        out: list[str] = []
        counts: dict[str, int] = {}
        position = 0
        for start, end, kind in spans:
            if start < position or end <= start:
                continue  # inside an earlier finding
            out += [text[position:start], f"[REDACTED_{kind.upper()}]"]
            counts[kind] = counts.get(kind, 0) + 1
            position = end
        return "".join(out) + text[position:], counts

    def text(self, text: str, counts: dict[str, int]) -> str:
        """Return the redacted text; what was taken out is added to ``counts``."""
        clean, found = self(text)
        for kind, n in found.items():
            counts[kind] = counts.get(kind, 0) + n
        return clean

    def name(self, name: str | None, counts: dict[str, int]) -> str | None:
        """Return an id, or its :func:`pseudonym` where it is an e-mail address or the like."""
        return name if not name or self.text(name, counts) == name else pseudonym(name)

    def reference(self, name: str | None, counts: dict[str, int]) -> str | None:
        """Return the id of a run, a model or the like, or its :func:`pseudonym`.

        Machines make these ids, and a long one may look like a number of somebody's by chance. So
        one is looked at only where it has an ``@``.
        """
        return self.name(name, counts) if name and "@" in name else name

    def record(
        self, fields: Mapping[str, Any], counts: dict[str, int], most: int | None = None
    ) -> dict[str, Any]:
        """Return the fields of an interaction, a message or feedback with every text redacted.

        Args:
            fields: plain values; some of the record's are enough.
            counts: what is taken out is added to it.
            most: characters that are kept of a text.
        """

        def change(text: str) -> str:
            clean = self.text(text, counts)
            return clean if most is None or len(clean) <= most else clean[:most] + " [...]"

        out = dict(fields)
        for name, value in fields.items():
            if not value:
                continue
            if name in _WORDS:
                out[name] = map_texts(value, change)
            elif name in _PEOPLE:
                out[name] = self.name(value, counts)
            elif name == "message_ids":
                out[name] = [self.reference(one, counts) for one in value]
            elif name in _REFERENCES:
                out[name] = self.reference(value, counts)
            elif name in ("messages", "feedback"):
                out[name] = [self.record(one, counts, most) for one in value]
        return out

    def interaction(self, interaction: Interaction) -> tuple[Interaction, dict[str, int]]:
        """Return the interaction with every text redacted, and the counts."""
        counts: dict[str, int] = {}
        return Interaction.model_validate(self.record(interaction.model_dump(), counts)), counts

    def feedback(self, feedback: Feedback) -> tuple[Feedback, dict[str, int]]:
        """Return the feedback with its words redacted, and the counts."""
        counts: dict[str, int] = {}
        return Feedback.model_validate(self.record(feedback.model_dump(), counts)), counts


def pseudonym(name: str) -> str:
    """Return what stands for an id that is personal data itself: the same for the same id.

    Everywhere, so that a person has one voice on many hosts. Whoever knows the id can make it too:
    that is how it is forgotten.
    """
    digest = blake2b(name.encode("utf-8", "replace"), digest_size=10, person=b"uno-name")
    return f"redacted-{digest.hexdigest()}"


def no_redaction() -> Redactor:
    """Return a redactor that lets everything through."""
    return Redactor({})


def redactor_of(home: Home, given: Redactor | bool | None = None) -> Redactor:
    """Return the redactor given, or the one that the home's ``[redaction] kinds`` ask for.

    Args:
        home: whose settings are read when nothing else is said.
        given: a redactor; None or True: as the settings say; False: nothing is taken out.

    Raises:
        ConfigError: the settings name an unknown kind.
    """
    if isinstance(given, Redactor):
        return given
    if given is False:
        return no_redaction()
    kinds = load_settings(home).redaction.kinds
    every = _default_detectors()
    if kinds is None:
        return Redactor(every)
    if unknown := sorted(set(kinds) - set(every)):
        raise ConfigError(
            f"{str(home.settings)!r} names unknown kinds of redaction {unknown}: choose among "
            f"{', '.join(every)}, or hand a Redactor of your own to the handler."
        )
    return Redactor({kind: every[kind] for kind in kinds})


# -- detectors -------------------------------------------------------------------------------------


def _default_detectors() -> dict[str, Detector]:
    def of(find: Callable[[str], _Spans]) -> Detector:
        return lambda text: [{"start": start, "end": end} for start, end in find(text)]

    finds = (_emails, _cards, _ibans, _addresses, _phones, _secrets)
    return {kind: of(find) for kind, find in zip(DEFAULT_KINDS, finds, strict=True)}


_SHAPE = bytes(
    48 if 48 <= b <= 57 else 32 if chr(b).isspace() else b if b in b".-+()/:" else 120
    for b in range(256)
)


@lru_cache(maxsize=4)
def _shape(text: str) -> bytes:
    """Return a text as bytes, one a character: digits are ``0``, letters ``x``; some marks stay.

    A look at it for a literal is ten times as fast as the detectors, which then run on the few
    texts that may hold something.
    """
    return text.encode("ascii", "replace").translate(_SHAPE)


def _digits_in_a_row(text: str, n: int) -> bool:
    dateless = _shape(text).replace(b"0000-00-00", b"x")
    return b"0" * n in dateless.translate(None, b" -.()/+")


# Bounded, as runs of words without an address may be long. Letters are Latin, Greek and Cyrillic:
# a Chinese character beside an address is none of its own. %40 is the sign in URLs.
_EMAIL = re.compile(
    r"[{0}0-9._%+-]{{1,64}}(?:@|%40|＠)[{0}0-9.-]{{1,255}}\.(?:xn--[a-z0-9-]{{2,}}|[{0}]{{2,}})"
    r"(?![{0}0-9_])".format("a-zA-Z\u00c0-\u024f\u0370-\u052f")
)
_CARD = re.compile(
    # 4-4-4-4 and 4-6-5 groups, or none; the first digits of the networks
    r"(?<![\d.-])(?:(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6\d{3})(?:[ -]?\d{4}){3}"
    r"|3[47]\d\d[ -]?\d{6}[ -]?\d{5}|3(?:0[0-5]|[689]\d)\d[ -]?\d{6}[ -]?\d{4})(?![\d-])"
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9])"
)


def _emails(text: str) -> _Spans:
    some = "@" in text or "%40" in text or "＠" in text
    return [m.span() for m in _EMAIL.finditer(text)] if some else []


def _cards(text: str) -> _Spans:
    """Numbers of 14 to 16 digits that begin as a network's do and pass the check (Luhn)."""
    if not _digits_in_a_row(text, 14):
        return []
    return [m.span() for m in _CARD.finditer(text) if _luhn(m.group())]


def _luhn(number: str) -> bool:
    digits = [int(c) for c in reversed(number) if c.isdigit()]
    return sum(digits[::2] + [sum(divmod(2 * d, 10)) for d in digits[1::2]]) % 10 == 0


def _ibans(text: str) -> _Spans:
    """Account numbers whose check digits are right (ISO 13616: modulo 97)."""
    if b"xx00" not in _shape(text):
        return []
    return [m.span() for m in _IBAN.finditer(text) if _is_iban(m.group().replace(" ", ""))]


def _is_iban(number: str) -> bool:
    moved = number[4:] + number[:4]
    return 15 <= len(number) <= 34 and int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


_NAMED = re.compile(
    r"(?:order|invoice|ticket|case|isbn|issn|serial|tracking|account|ref(?:erence)?|id|no|"
    r"number|version|section|chapter|release|v|[a-z]+-(?=$)|"
    r"订单|单号|编号|运单|工单|序列号|账号|版本|第)[号码]?\s*(?:\.|#|is|nr|是|为)?\s*[:：#]?\s*$",
    re.IGNORECASE,
)
"""What a number is called by the words before it: no phone and no address."""
_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}(?::{1,2}[0-9A-Fa-f]{1,4}){2,7}(?:::)?(?![\w:])")


_IPV4_SHAPE = re.compile(rb"0\.0{1,3}\.0{1,3}\.0")
_IPV6_SHAPE = re.compile(rb":[0x]{0,4}:[0x]")


def _addresses(text: str) -> _Spans:
    """IP addresses of both versions."""
    shape, found = _shape(text), list[re.Match[str]]()
    if _IPV4_SHAPE.search(shape):
        found += _IPV4.finditer(text)
    if _IPV6_SHAPE.search(shape):
        found += _IPV6.finditer(text)
    return [m.span() for m in found if _is_address(m.group()) and not _is_named(text, m.start())]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return any(c.isdigit() for c in text)


def _is_named(text: str, at: int) -> bool:
    return _NAMED.search(text[max(0, at - 24) : at]) is not None


_REGIONS = ("US", "CN", "GB", "DE")
"""Whose national forms are known; numbers with a country code need none."""
_PHONE = re.compile(
    r"(?<![0-9A-Za-z_+.#-])(?:"
    r"(?P<abroad>(?:\+|00)[1-9](?:[ .()/-]{0,2}\d){6,14})"  # +49 (0)30 1234567
    r"|(?P<home>\(?0\d(?:[ ()/-]{0,2}\d){6,10}"  # 020 7946 0958, 089/636-48018
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}([ .-])\d{3,4}\3\d{4}"  # (415) 555-0132, 138-1234-5678
    r"|1[3-9]\d{9})"  # 13812345678
    r")(?![0-9A-Za-z_-]|\.\d)"
)
_CALLED_PHONE = re.compile(
    r"(?:\b(?:tel|phone|mobile|cell|whatsapp|call me (?:at|on))\b\.?(?: (?:number|no\.?))?"
    r"(?: is)?|电话|手机|手机号|座机|致电)[号码]{0,2}[是为:：]?\s*:?\s*"
    r"(\d[\d .-]{5,16}\d)(?!\w)",
    re.IGNORECASE,
)


def _phones(text: str) -> _Spans:
    """Phone numbers that phonenumbers finds valid: international, or national of the regions.

    Numbers that the words before them call an order, a ticket, an ISBN and the like are left.
    """
    if not _digits_in_a_row(text, 7):
        return []
    spans: _Spans = []
    for found in _PHONE.finditer(text):
        number = found.group()
        if number[0] != "+" and _is_named(text, found.start()):
            continue
        if found["abroad"]:
            valid = _is_phone("+" + number.lstrip("+0"), None)
        else:
            valid = any(_is_phone(number, region) for region in _REGIONS)
        if valid:
            spans.append(found.span())
    for found in _CALLED_PHONE.finditer(text):
        if sum(c.isdigit() for c in found.group(1)) >= 6:
            spans.append(found.span(1))
    return spans


@lru_cache(maxsize=1024)
def _is_phone(number: str, region: str | None) -> bool:
    from phonenumbers import Leniency, PhoneNumberMatcher

    # "Strict": valid, and grouped as such numbers are. Asked of a candidate alone: on whole texts
    # it takes a millisecond for a line with a date.
    return PhoneNumberMatcher(number, region, Leniency.STRICT_GROUPING).has_next()


_MARKS = {
    "_": ("sk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "hf_", "npm_", "gsk_",
          "lsv2_", "whsec_", "pcsk_", "r8_"),
    "-": ("sk-", "glpat-", "pypi-", "tvly-", "xai-", "-----b"),
    ":": ("://",),
    "": ("xox", "akia", "asia", "aiza", "eyj", "bearer ", "basic ", "pass", "pwd", "secret",
         "token", "api", "accountkey", "sg.", "ya29.", "dapi",
         "密码", "口令", "密钥", "令牌"),
}  # fmt: skip
"""What every secret that we know has in it, lower-case, by a character that is found quicker.

They are looked for one by one, which is faster than one pattern of many. Most texts have none."""
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"[sr]k-[A-Za-z0-9_-]{16,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{35}"
    r"|hf_[A-Za-z0-9]{20,}|glpat-[A-Za-z0-9_-]{16,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}"
    r"|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}"
    r"|lsv2_[a-z]{2}_[A-Za-z0-9_]{20,}|tvly-[A-Za-z0-9-]{20,}|whsec_[A-Za-z0-9+/=]{20,}"
    r"|pcsk_[A-Za-z0-9_]{20,}|r8_[A-Za-z0-9]{30,}|xai-[A-Za-z0-9]{30,}|dapi[0-9a-f]{32}"
    r"|ya29\.[A-Za-z0-9_-]{20,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    r")"
)
_PEM = re.compile(
    # A key without an end stops at the next one: else each of many beginnings is followed for long.
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----BEGIN ).){0,20000}?"
    r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|(?=-----BEGIN )|\Z)",
    re.DOTALL,
)
_BEARER = re.compile(
    r"(?:\bbearer\s+(?=.{20})|\bauthorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?basic\s+)"
    r"([A-Za-z0-9._~+/-]{8,}=*)",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"[a-z][a-z0-9+.-]{0,20}://[^\s/@:]{0,100}:([^\s/@]{1,200})@", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?:(?:\b|_)(?:password|passwort|passwd|passphrase|pwd|secret(?:[ _-]?(?:access)?[ _-]?key)?|"
    r"(?:api|account)[ _-]?key|(?:access|auth|api|secret|bearer|refresh)[ _-]?token|token|"
    r"client[ _-]?secret)\b[\"']?|密码|口令|密钥|令牌)"
    r"\s{0,3}(?:(?P<sign>[=:：]>?)|is|was|是|为)\s{0,3}[\"'`]?(?P<value>[^\s\"'`,;，。；]{6,200})",
    re.IGNORECASE,
)


def _secrets(text: str) -> _Spans:
    """Keys, tokens, private keys, credentials in URLs, and values assigned to a password."""
    low = text.lower()
    if not any(sign in low and any(m in low for m in marks) for sign, marks in _MARKS.items()):
        return []
    return sorted(_secret_spans(text, low), key=lambda s: (s[0], -s[1]))  # the longest first


def _secret_spans(text: str, low: str) -> Iterator[tuple[int, int]]:
    yield from (m.span() for m in _TOKEN.finditer(text))
    if "-----begin" in low:
        yield from (m.span() for m in _PEM.finditer(text))
    yield from (m.span(1) for m in _BEARER.finditer(text) if _looks_secret(m.group(1)))
    if "://" in low:
        yield from (m.span(1) for m in _USERINFO.finditer(text))
    yield from (m.span("value") for m in _ASSIGNED.finditer(text) if _looks_secret(m["value"]))


def _looks_secret(value: str) -> bool:
    """Whether a word is no plain word: it has digits, or marks, or capitals within."""
    bare = value.rstrip(".!?)")
    if len(bare) < 6 or bare.startswith(("[REDACTED", "<", "${", "http")):
        return False
    return bool(
        re.search(r"\d", bare) or re.search(r"[^\w.-]", bare) or re.search(r"[a-z][A-Z]", bare)
    )
