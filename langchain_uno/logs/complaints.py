"""Complaints that name nothing, and mere insults: there is nothing in them to learn.

Matched by *coverage*, like praise: a turn is a bare complaint only when every word of it is one, so
"bad, use bullets" stays a request. Data for the filters; English and Chinese.
"""

from __future__ import annotations

import re

__all__ = ["only_complaint"]

_BAD = """
bad awful terrible horrible poor weak wrong incorrect false useless unhelpful worthless pointless
disappointing disappointed disappointment unsatisfied unsatisfactory unhappy dissatisfied meh nope
nah wack lame sucks suck fail failed failure mistake mistaken error garbage rubbish trash crap
nonsense ridiculous worse worst unacceptable hopeless lousy mediocre bullshit expected hoped
"""
_NOT = "not no don't doesn't didn't isn't wasn't can't cannot won't never nothing hardly barely"
_LIKED = """
good great nice right correct helpful useful help helps helped helping like love want wanted need
needed asked it better best enough sense work works working useful fine ok okay happy sure convinced
impressed satisfied think believe understand mind
"""
_AROUND = """
a an the this that that's these those it's its i i'm i've me my you you're your we us is are was
were be been am do does did make makes made makes have has had get got gets can could would should
will just so very really quite at all to in for of on from with and but or as what than much more
one ones still yet again try trying tries harder please hm hmm well ah oh uh um too rather pretty
kind sort bit answer answers response reply result text thing stuff whole way here there look
looks seem seems feel feels sound sounds man dude bot honestly frankly sadly anything something
now then even totally completely absolutely utterly simply only any each every time times second
"""
_INSULTS = """
idiot idiots moron morons stupid dumb dumbest dumbass fool foolish imbecile loser retard brainless
clueless pathetic scum bastard asshole arsehole jerk jackass wanker twat shit shitty bullshit crap
fuck fucking fucked fucker f*** f**k damn damned bloody hell piss pissed screw hate despise ugly
braindead brain dead die drop trash garbage junk piece robot machine company monkey shut up go off
yourself talked ever worst who programmed wrote created built
"""
_SURE_INSULTS_TEXT = """
idiot idiots moron morons stupid dumb dumbest dumbass imbecile loser retard brainless pathetic
scum bastard asshole arsehole jackass wanker twat fuck fucking fucked fucker f*** f**k screw hate
shit shitty braindead hell monkey trash junk damn
"""
_SURE_INSULTS = frozenset(_SURE_INSULTS_TEXT.split())
_ASKS_AGAIN = re.compile(r"\b(?:try|do it|do that|once) (?:again|harder|more|better)\b|\bagain\b")

_WORD = re.compile(r"[a-z0-9*][a-z0-9'*]*")
_HAN = re.compile("[\u4e00-\u9fff]")
_BAD_WORDS, _NOT_WORDS, _LIKED_WORDS, _AROUND_WORDS, _INSULT_WORDS = (
    frozenset(words.split()) for words in (_BAD, _NOT, _LIKED, _AROUND, _INSULTS)
)
_BAD_ZH = re.compile(
    "不太行|不行|不好|不对|不是这个|不是这样|不喜欢|不满意|不够好|不理想|不怎么样|不咋地|不太好|没帮助|没有帮助|没用|没有用|没什么用|无用|"
    "用都没有|太差|很差|真差|差劲|差评|糟糕|太糟|很糟|错了|错的|又错|搞错|弄错|答错|失望|垃圾|胡说|瞎说|乱说|扯淡|无语|一般般|"
    "不一样|看不懂|听不懂|莫名其妙|离谱|可以更好|做得更好|会更好|重来|再用心|用心点|再试|重试|不这么认为|不认同|白问"
)
_INSULT_ZH = re.compile(
    "白痴|傻子|傻瓜|傻逼|傻|蠢货|太蠢|最蠢|很蠢|真蠢|蠢|笨蛋|太笨|笨|滚蛋|滚|去死|去你的|他妈的|妈的|操|闭嘴|废物|垃圾|破玩意儿?|破东西|"
    "破机器人|脑子进水|脑残|智障|弱智|恨死|讨厌|最烂|烂透|猪|猴子|王八蛋|混蛋|有病"
)
_AROUND_ZH = frozenset(
    "的了吧呢啊呀哦啦嘛哈吗呗这个那次是我你您他它们回答内容结果机器人公司东西太真很非常都也就还又再一点儿有在说什么想跟以为"
    "可请来做得到见过史上谁写的吃没嗯唉哎呃不觉得完全根本简直实在感这样那样死"
)
_LONGEST = 200


def only_complaint(text: str) -> str | None:
    """Return ``"vague"`` (a complaint about nothing in particular), ``"hostile"``, or None."""
    low = text.strip().lower().replace("\u2019", "'")
    if not low or len(low) > _LONGEST:
        return None
    return _chinese(low) if _HAN.search(low) else _english(low)


def _english(text: str) -> str | None:
    if any(c.isalpha() and not c.isascii() for c in text):
        return None
    words = _WORD.findall(text)
    known = _BAD_WORDS | _NOT_WORDS | _LIKED_WORDS | _AROUND_WORDS
    if not words:
        return None
    if all(w in known or w in _INSULT_WORDS for w in words):
        if any(w in _SURE_INSULTS for w in words):
            return "hostile"
        bad = any(w in _BAD_WORDS for w in words)
        denied = any(w in _NOT_WORDS for w in words)
        if all(w in known for w in words) and (
            bad or denied or "better" in words or _ASKS_AGAIN.search(text)
        ):
            return "vague"
    return None


def _chinese(text: str) -> str | None:
    without = _INSULT_ZH.sub("", text)
    rest = _BAD_ZH.sub("", without)
    if any(c not in _AROUND_ZH for c in _HAN.findall(rest)) or _WORD.search(rest):
        return None
    if without != text and (_BAD_ZH.sub("", text) == text or "垃圾" not in text):
        return "hostile"
    if _INSULT_ZH.sub("", _BAD_ZH.sub("", text)) != _BAD_ZH.sub("", text):
        return "hostile"
    return "vague" if _BAD_ZH.search(text) else None
