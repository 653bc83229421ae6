"""What redaction looks for beyond LangChain's detectors: phone numbers, and secrets.

Rules of thumb, held against texts with order numbers, dates, ISBNs and amounts (the tests): a plain
run of digits is a phone number only where its form or the word before it says so, and a word after
"password is" is a secret only where it looks like one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypedDict

__all__ = ["Match", "detect_phone", "detect_secret", "shape"]


class Match(TypedDict):
    """One finding, in the form of LangChain's ``PIIMatch``."""

    type: str
    value: str
    start: int
    end: int


_SHAPE = bytes(
    48 if 48 <= b <= 57 else 32 if chr(b).isspace() else b if b in b".-+()/" else 120
    for b in range(256)
)


@lru_cache(maxsize=4)
def shape(text: str) -> bytes:
    """Return a text as bytes, one a character: digits are ``0``, letters ``x``; some marks stay.

    Literal prefixes make a look at it ten times as fast as the detectors, which then run on the few
    texts that may hold something.
    """
    return text.encode("ascii", "replace").translate(_SHAPE)


# -- phone -----------------------------------------------------------------------------------------

_BETWEEN = b" -.()/+"
_SEVEN_DIGITS = b"0000000"
_PHONE = re.compile(
    r"(?<![\w+.#-])(?:"
    r"(?:\+|00)[1-9]\d{0,2}(?:[ .-]?\(0?\d{1,4}\))?(?:[ .-]?\d{2,5}){2,5}"  # +49 (0)30 1234567
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}|\d{3} \d{3} \d{4}"  # (415) 555-0132
    r"|1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})"  # 13812345678
    r"|0\d{2,3}-\d{7,8}|0\d{2,4}[ /]\d{3,4}[ -]?\d{3,4}"  # 010-62345678, 020 7946 0958
    r")(?![\w-]|\.\d)"
)
_NAMED_PHONE = re.compile(
    r"(?:\b(?:tel|phone|mobile|cell|whatsapp|call me (?:at|on))\b\.?(?: (?:number|no\.?))?"
    r"(?: is)?|电话|手机|手机号|座机|致电)[号码]{0,2}[是为:：]?\s*:?\s*"
    r"(\d[\d .-]{5,16}\d)(?!\w)",
    re.IGNORECASE,
)
_NO_PHONE = re.compile(
    r"(?:order|invoice|ticket|case|isbn|issn|serial|tracking|account|ref(?:erence)?|id|no|"
    r"number|version|订单|单号|编号|运单|工单|序列号|账号)[号码]?\s*(?:\.|#|is|nr|是|为)?\s*[:：#]?\s*$",
    re.IGNORECASE,
)


def detect_phone(text: str) -> list[Match]:
    """Return phone numbers: international, North American, Chinese, and 0-prefixed national ones.

    Numbers that the words before them call an order, a ticket, an ISBN and the like are left.
    """
    if _SEVEN_DIGITS not in shape(text).translate(None, _BETWEEN):
        return []
    spans: list[tuple[int, int]] = []
    for found in _PHONE.finditer(text):
        digits = sum(c.isdigit() for c in found.group())
        before = text[max(0, found.start() - 24) : found.start()]
        if 8 <= digits <= 15 and (found.group()[0] == "+" or not _NO_PHONE.search(before)):
            spans.append(found.span())
    for found in _NAMED_PHONE.finditer(text):
        if sum(c.isdigit() for c in found.group(1)) >= 6:
            spans.append(found.span(1))
    return [Match(type="phone", value="", start=a, end=b) for a, b in spans]


# -- secrets ---------------------------------------------------------------------------------------

# What every secret that we know has in it, lower-case; looked for one by one, which is faster than
# one pattern of many. Most texts have none.
_MARKS = (
    "sk-", "xox", "akia", "asia", "aiza", "glpat-", "pypi-", "eyj", "-----b", "bearer ", "pass",
    "pwd", "secret", "token", "api", "://",
)  # fmt: skip
_MARKS_LOW_LINE = ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "hf_", "npm_")
_MARKS_ZH = ("密码", "口令", "密钥", "令牌")
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[A-Za-z0-9_-]{35}"
    r"|hf_[A-Za-z0-9]{20,}|glpat-[A-Za-z0-9_-]{16,}|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    r")"
)
_PEM = re.compile(
    # A key without an end stops at the next one: else each of many beginnings is followed for long.
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----BEGIN ).){0,20000}?"
    r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|(?=-----BEGIN )|\Z)",
    re.DOTALL,
)
_BEARER = re.compile(r"\bbearer\s+([A-Za-z0-9._~+/-]{20,}=*)", re.IGNORECASE)
_USERINFO = re.compile(r"[a-z][a-z0-9+.-]{0,20}://[^\s/@:]{0,100}:([^\s/@]{1,200})@", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?:(?:\b|_)(?:password|passwort|passwd|passphrase|pwd|secret(?:[ _-]?key)?|api[ _-]?key|"
    r"(?:access|auth|api|secret|bearer|refresh)[ _-]?token|token|client[ _-]?secret)\b[\"']?"
    r"|密码|口令|密钥|令牌)"
    r"\s{0,3}(?:(?P<sign>[=:：]>?)|is|was|是|为)\s{0,3}[\"'`]?(?P<value>[^\s\"'`,;，。；]{6,200})",
    re.IGNORECASE,
)


def detect_secret(text: str) -> list[Match]:
    """Return keys, tokens, private keys, credentials in URLs, and values assigned to a password."""
    low = text.lower()
    if not _has_mark(low):
        return []
    spans = [m.span() for m in _TOKEN.finditer(text)]
    if "-----begin" in low:
        spans += [m.span() for m in _PEM.finditer(text)]
    spans += [m.span(1) for m in _BEARER.finditer(text) if _looks_secret(m.group(1))]
    if "://" in low:
        spans += [m.span(1) for m in _USERINFO.finditer(text)]
    spans += [m.span("value") for m in _ASSIGNED.finditer(text) if _looks_secret(m.group("value"))]
    # The longest of findings that begin together; the redactor drops what lies inside another.
    spans.sort(key=lambda s: (s[0], -s[1]))
    return [Match(type="secret", value="", start=a, end=b) for a, b in spans]


def _has_mark(low: str) -> bool:
    for mark in _MARKS:
        if mark in low:
            return True
    if "_" in low:
        for mark in _MARKS_LOW_LINE:
            if mark in low:
                return True
    if not low.isascii():
        for mark in _MARKS_ZH:
            if mark in low:
                return True
    return False


def _looks_secret(value: str) -> bool:
    """Whether a word is no plain word: it has digits, or marks, or capitals within."""
    bare = value.rstrip(".!?)")
    if len(bare) < 6 or bare.startswith(("[REDACTED", "<", "${", "http")):
        return False
    return bool(
        re.search(r"\d", bare) or re.search(r"[^\w.-]", bare) or re.search(r"[a-z][A-Z]", bare)
    )
