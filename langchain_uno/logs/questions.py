"""A follow-up turn that asks something else says nothing about the answer before it.

Told by form: a question (or a small commission) that speaks neither to the writer nor of the
answer, names no way of writing, and shares no word with the conversation. In doubt it is feedback:
a question taken for feedback distils to no rule, but feedback taken for a question is lost.
"""

from __future__ import annotations

import re

__all__ = ["is_new_question"]

_LEAD = re.compile(
    r"^(?:(?:ok(?:ay)?|so|well|now|hi|hello|hey|thanks|thank you|great|btw|by the way|"
    r"one more thing|"
    r"(?:a |an )?(?:different|another|other|new|next|unrelated) (?:topic|question|thing|subject))"
    r"\b[\s,.:;!-]*)+",
    re.IGNORECASE,
)
_LEAD_ZH = re.compile(
    "^(?:好的?|谢谢|对了|那|另外|顺便(?:问一?下)?|换个(?:话题|问题)|另一个问题|还有个问题|再问一?个|请问|想问一?下|问一?下)"
    "[，,。：:！! ]*"
)
_ASKS = re.compile(
    r"(?:(?:what|who|when|where)(?:'s|s| is| are| was| were| do| does| did| can| will| won| wrote)"
    r"|who \w+ed|what \w+ (?:is|are|do|does)|which|how (?:do|does|did|to|can|many|much|tall|long"
    r"|far|old|big|high|deep|fast|often|is|are|was)|is|are|was|were|does|do|did|can|has|have)\b",
    re.IGNORECASE,
)
_KNOWS = re.compile(r"(?:do you (?:happen to )?know|can you tell me|could you tell me)\b", re.I)
_COMMISSION = re.compile(
    r"(?:please )?(?:tell|write|sing|make|give) (?:me |us )?(?:a|an|another|some) (?:\w+ )?"
    r"(?:joke|poem|story|song|haiku|limerick|riddle|recipe|fairy tale)s?\b",
    re.IGNORECASE,
)
_NOT_NEW_TEXT = """
you your yours yourself it it's its this that these those them they again instead please add
include mention use put make write rewrite change fix replace remove drop leave keep skip cut
shorten explain say give show list mark number sort order translate end start begin answer answers
reply response text shorter longer short simpler simple clearer more less fewer better wrong
correct mistake right sure table bullet bullets numbered numbers heading headings title summary
sentence sentences paragraph paragraphs step steps example examples tone format word words version
option variant bold emoji emojis subject greeting sign-off closing ending intro introduction
source sources link links draft letter email mail message style language
"""
_NOT_NEW = frozenset(_NOT_NEW_TEXT.split())
_NOT_NEW_ZH = re.compile(
    "你|您|这|它|改|写成|写上|写|加上|加个|加|短|删|去掉|列|翻译|格式|语气|再来|重新|不要|别|应该|说明|解释|例子|步骤|"
    "第[一二三四五六七八九十]|句|段|标题|结尾|开头|回答|答案|为什么|怎么样|确定|上面|刚才|表格|要点|清单|版本|呢"
)
_KNOWS_ZH = re.compile("^(?:你|您)知道")
_ASKS_ZH = re.compile(
    "[?？]|吗$|什么|怎么|多少|几[个号点岁天]|谁|哪[里儿个些家只种]|多[高远大久长深]|何时|是不是"
)
_REQUEST_ZH = re.compile("(?:能|可以|能不能|可不可以|可否|是否可以)")
_COMMISSION_ZH = re.compile(
    "(?:讲|说|写|来|唱|给.{0,6}写)(?:一)?(?:个|首|篇|段).{0,6}(?:笑话|故事|诗|歌|谜语|段子)|写首诗"
)
_HAN = re.compile("[\u4e00-\u9fff]")
_WORD = re.compile(r"[a-z0-9][a-z0-9'-]*")
_COMMON_TEXT = """
a an the of to in on at for from by with and or but if is are was were be been am do does did can
could will would should may might must have has had what who whom whose when where which why how
many much there here i me my we us our he she his her not no yes than then so as about into out up
down over any some all one two get got know tell next last year today tomorrow yesterday
"""
_COMMON = frozenset(_COMMON_TEXT.split())
_LONGEST = 300


def is_new_question(text: str, query: str, answer: str) -> bool:
    """Return whether a follow-up turn asks something that has nothing to do with the answer.

    Args:
        text: the turn.
        query: what was asked before (all turns).
        answer: the answer that the turn follows.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST:
        return False
    return _chinese(text, query + answer) if _HAN.search(text) else _english(text, query, answer)


def _english(text: str, query: str, answer: str) -> bool:
    bare = _LEAD.sub("", text)
    asked = _KNOWS.sub("", bare).strip()
    if _COMMISSION.match(bare):
        return not _shared(asked, query, answer)
    if not (_ASKS.match(bare) or asked != bare) or ":" in asked or asked.endswith("."):
        return False  # "What matters to me: be brief." asks nothing
    words = set(_WORD.findall(asked.lower().replace("\u2019", "'")))
    if words & _NOT_NEW or len(words - _COMMON) < 1:
        return False
    return not _shared(asked, query, answer)


def _shared(text: str, query: str, answer: str) -> bool:
    """Whether a word of weight stands in the conversation as well (by its first five letters)."""

    def stems(of: str) -> set[str]:
        return {w[:5] for w in _WORD.findall(of.lower()) if w not in _COMMON and len(w) > 2}

    return bool(stems(text) & stems(f"{query} {answer}"))


def _chinese(text: str, conversation: str) -> bool:
    bare = _LEAD_ZH.sub("", text)
    asked = _KNOWS_ZH.sub("", bare)
    if _COMMISSION_ZH.search(asked):
        return True
    if not _ASKS_ZH.search(asked) or _NOT_NEW_ZH.search(asked) or _REQUEST_ZH.match(asked):
        return False
    pairs = {asked[i : i + 2] for i in range(len(asked) - 1) if _HAN.match(asked[i])}
    told = {p for p in pairs if not _ASKS_ZH.search(p) and all(_HAN.match(c) for c in p)}
    return not any(p in conversation for p in told)
