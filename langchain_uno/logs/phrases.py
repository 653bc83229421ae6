"""Words of thanks and small talk, English and Chinese: data for the filters.

Praise and small talk are matched by *coverage*: a turn is praise only when nothing is left after
its praise and filler words are taken away, so "great, but shorter" stays a request. Injections
stand in a file of their own.
"""

from __future__ import annotations

import re

__all__ = ["ERRORS", "only_praise", "only_small_talk"]

_PRAISE = """
thank you so very much|thank you so much|thank you very much|thank you|many thanks|thanks a lot
thanks a bunch|thanks a million|thanks|thank u|thx|tysm|ty|much appreciated|appreciated
appreciate it|appreciate the help|appreciate your help|cheers|well done|good job|great job
nice job|good work|great work|nice work|nice one|good one|love it|loved it|i love this|love this
like it|i like it|i like this|looks good|looks great|sounds good|sounds great|works for me
works now|works great|works perfectly|works well|worked|works|it works|that works|this works
lgtm|spot on|on point|exactly what i needed|exactly what i wanted|just what i needed
exactly what i was looking for|what i needed|what i wanted|what i was looking for
couldn't be better|more than i expected|better than expected|better than i expected
couldn't be better|could not be better|no complaints|can't complain|nothing to add
nothing to change|keep it up|keep up the good work|you rock|you're the best|you are the best
you're awesome|you are awesome|you're a lifesaver|you are a lifesaver|lifesaver|that helps a lot
this helps a lot|helps a lot|that helped|this helped|that helps|this helps|very helpful
so helpful|super helpful|helpful|useful|perfect|excellent|awesome|amazing|great|good|nice
fantastic|wonderful|brilliant|superb|outstanding|terrific|lovely|beautiful|impressive|cool|neat
sweet|wow|bravo|kudos|correct|right|exactly|100%|10/10|a+|five stars|5 stars|5/5|stars
happy with it|happy with this|i'm happy|satisfied|solved|problem solved|that solved it
this solved it|fixed|clear now|all clear|well written|great answer|good answer|nice answer
perfect answer|best answer|excellent answer|well explained
"""
_SMALL_TALK = """
hello there|hello|hi there|hi|hey there|hey|good morning|good afternoon|good evening|good night
how are you|how are you doing|how's it going|what's up|how was your day|have a nice day
have a good day|have a great day|have a nice weekend|have a good weekend|have a great weekend
nice weekend|you too|see you|see you later|see you tomorrow|see ya|talk to you later|talk later
ttyl|goodbye|bye bye|bye|take care|got it|i see|understood|noted|i got it|makes sense|ok|okay
okey|k|alright|all right|fine|sure|yes|yeah|yep|yup|no|nope|no problem|never mind|nevermind|nvm
that's all|that is all|that's it|that will be all|nothing else|no more questions|done|haha
hahaha|hehe|lol|lmao|rofl|hmm|hm|uh|um|oh|ah|i'll be back|brb|let me check|let me think
one moment|gotta go|got to go|i have to go|i need to go|back to work|test|testing|ping
just testing|nice weather|the weather is nice|nice weather today|are you there|are you a robot
are you human|who are you|what is your name|what's your name|how is it going|how goes it|what a day
what a week|one sec|one second|just a sec|just a moment|i'm on the train|i'm on the bus|on my way
i'm in a meeting|in a meeting|i'm tired|so tired|happy holidays|happy weekend|happy monday
"""
_FILLERS = """
a an the this that it it's its is was are were am i i'm me my you you're your yours we us our so
very much really quite pretty truly absolutely totally completely just too also and but for of
to in on with at all now today again always as such one here there have has had do does did done
be been would will can could oh ah well then guys everyone everybody team mate man buddy friend
dear sir bot ai assistant chatgpt answer response reply result results work job help explanation
explaining summary text email letter version write-up list report story code everything thing
time quick quickly fast super extremely incredibly definitely certainly indeed simply made makes
make day lot lots bunch that's it's here's this's
"""
_PRAISE_ZH = """
非常感谢您的帮助|非常感谢你的帮助|谢谢你的帮助|谢谢您的帮助|谢谢帮助|感谢帮助|十分感谢
非常感谢|多谢|谢谢你|谢谢您|谢谢|谢啦|谢了|感谢|感激不尽|辛苦了|辛苦|太棒了|太好了
太赞了|太厉害了|厉害|真棒|真好|真不错|棒极了|好极了|很棒|很好|很不错|非常好|非常棒
非常不错|不错|挺好的|挺好|挺不错|完美|优秀|出色|精彩|漂亮|赞|点赞|好评|给力|牛逼
牛|满意|非常满意|很满意|喜欢|很喜欢|我喜欢|有帮助|很有帮助|非常有帮助|帮了大忙
帮大忙了|有用|很有用|非常有用|正是我需要的|正是我想要的|就是我要的|这正是我要的|没问题了
解决了|问题解决了|搞定了|搞定|可以用了|写得真好|写得很好|写得好|说得好|说得对
回答得很好|回答得好|答得好|做得好|做得很好|干得漂亮|干得好|对的|正确|没错|满分|五星
太完美了|好得很|完全正确|真棒|万分感谢|感激|厉害了|大神|高手|一次就成|明星|正合我意|如我所愿|爱了|学到了|受教了|收到感谢|好棒|超棒|超赞|绝了|好厉害
"""
_SMALL_TALK_ZH = """
你好|您好|早上好|上午好|下午好|晚上好|早安|晚安|在吗|在不在|再见|拜拜|回头见|回头聊
明天见|下次见|下次聊|先这样|就这样|就这样吧|好的|好吧|好嘞|好呢|好哒|好|行|行吧
可以|嗯嗯|嗯|哦哦|哦|噢|啊|明白了|明白|知道了|了解了|了解|懂了|收到|没事了|没事
没有了|没了|没别的了|不用了|算了|哈哈哈|哈哈|呵呵|嘻嘻|今天天气不错|天气不错|天气真好
周末愉快|祝你周末愉快|祝你愉快|祝好|保重|你是谁|你叫什么名字|你是机器人吗|吃了吗
测试一下|测试|最近怎么样|过得怎么样|最近好吗|今天好累|好累|我在路上|在路上|我在火车上|明天见|稍等|等一下|我看看|我想想|我先忙了|先忙了|下班了
"""
_FILLERS_ZH = (
    "你您我他它们的了吧呢啊呀哦啦嘛哈这个那次回答内容结果帮忙助真太很非常都是也就还挺蛮超十分特"
    "别对于一下今天大家各位"
)

_WORD = re.compile(r"[a-z0-9][a-z0-9'+/%-]*")
_HAN = re.compile("[\u4e00-\u9fff]")
_LONGEST = 400


def _phrases(text: str) -> re.Pattern[str]:
    every = sorted({p for p in re.split(r"[|\n]", text) if p}, key=len, reverse=True)
    if _HAN.search(text):
        return re.compile("|".join(map(re.escape, every)))
    # Not before "/", a digit or "%": "10/10" must not be found in "10/100".
    return re.compile(r"(?<![\w'])(?:" + "|".join(map(re.escape, every)) + r")(?![\w/%'])")


_PRAISES = frozenset(p for p in re.split(r"[|\n]", _PRAISE + _PRAISE_ZH) if p)
_KNOWN = (_phrases(_PRAISE + "|" + _SMALL_TALK), _phrases(_PRAISE_ZH + "|" + _SMALL_TALK_ZH))
_FILLER_WORDS = frozenset(_FILLERS.split())


def only_praise(text: str) -> bool:
    """Whether the turn says thanks or well done, and nothing else."""
    return _covered(text, praise=True) or _all_kind(text)


def only_small_talk(text: str) -> bool:
    """Whether the turn is a greeting, an acknowledgement or chatter (or says nothing at all)."""
    return _covered(text, praise=False)


def _covered(text: str, *, praise: bool) -> bool:
    text = text.strip().lower().replace("\u2019", "'")
    if len(text) > _LONGEST:
        return False
    found: list[str] = []
    rest = text
    for pattern in _KNOWN:  # longest phrase first: "have a nice day" is not the praise "nice"
        found += pattern.findall(rest)
        rest = pattern.sub(" ", rest)
    if praise and not any(p in _PRAISES for p in found) and not _thumbs_up(text):
        return False
    left = [w for w in _WORD.findall(rest) if w not in _FILLER_WORDS]
    left += [c for c in _HAN.findall(rest) if c not in _FILLERS_ZH]
    # Letters of any other script are words that we can't read: not covered.
    left += [c for c in rest if c.isalpha() and not c.isascii() and not _HAN.match(c)]
    return not left


_KIND_TEXT = """
thank thanks thankful thx ty cheers obliged grateful appreciate appreciated awesome amazing great
good nice perfect perfectly excellent brilliant fantastic wonderful superb lovely beautiful cool
neat sweet wow bravo kudos right correct correctly exactly exact love loved loves like liked likes
enjoyed best star hero legend genius champ lifesaver blessing charm gem gold saved saves helped
helps helpful useful works worked working fixed solved success happy glad pleased delighted
satisfied impressed impressive flawless spotless superb terrific splendid outstanding hurray
hooray yay yes yess
"""
_BESIDE_TEXT = """
a an the this that that's these it it's its i i'm i am me my you you're your u we us is are was
were be do did does have has had so very really quite many all of to in for on at and as with ton
tons lot lots bunch million time day week life now today here what answer answers response reply
help work job done thing stuff one ever first try like ok okay oh ah well sir man mate buddy
friend dear bot everyone team guys totally absolutely truly definitely indeed such
"""
_KIND, _BESIDE = frozenset(_KIND_TEXT.split()), frozenset(_BESIDE_TEXT.split())


def _all_kind(text: str) -> bool:
    """Whether every word is a kind one, or stands beside kind ones and asks for nothing."""
    low = text.strip().lower().replace("\u2019", "'")
    words = _WORD.findall(low)
    if not words or len(low) > _LONGEST or any(c.isalpha() and not c.isascii() for c in low):
        return False
    kind = [w for w in words if w in _KIND and w not in ("like", "right", "good", "help")]
    return bool(kind) and all(w in _KIND or w in _BESIDE for w in words)


def _thumbs_up(text: str) -> bool:
    return any(
        c in text for c in "\U0001f44d\U0001f44f\U0001f389\U0001f60d\u2764\U0001f64f\U0001f4af"
    )


_I = re.IGNORECASE
ERRORS = re.compile(
    r"^\W*(?:error\b\s*[:(]|internal server error|service unavailable|bad gateway|"
    r"gateway time-?out|too many requests|rate limit (?:exceeded|reached)|request timed out|"
    r"connection (?:error|refused|reset)|traceback \(most recent call last\)|"
    r"an? (?:unexpected |internal |unknown )?error (?:has )?occurred|something went wrong|"
    r"(?:http |error )(?:429|500|502|503|504)\b|context[_ ]length[_ ]exceeded|"
    r"(?:系统|服务|服务器|网络|内部)(?:出错|错误|异常|繁忙|超时)|"
    r"请求(?:失败|超时|过于频繁)|发生(?:了)?(?:未知)?错误)",
    _I,
)
"""Answers that begin like this (and are short) are error messages of some server."""
