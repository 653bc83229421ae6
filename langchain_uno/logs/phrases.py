"""Words of thanks, small talk and planted instructions, English and Chinese: data for the filters.

Praise and small talk are matched by *coverage*: a turn is praise only when nothing is left after
its praise and filler words are taken away, so "great, but shorter" stays a request. Injection
patterns name what users do not say of answers; a user who takes back *their own* wish is not one.
"""

from __future__ import annotations

import re

__all__ = ["ERRORS", "INJECTIONS", "only_praise", "only_small_talk"]

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
are you human|who are you|what is your name|what's your name
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
爱了|学到了|受教了|收到感谢|好棒|超棒|超赞|绝了|好厉害
"""
_SMALL_TALK_ZH = """
你好|您好|早上好|上午好|下午好|晚上好|早安|晚安|在吗|在不在|再见|拜拜|回头见|回头聊
明天见|下次见|下次聊|先这样|就这样|就这样吧|好的|好吧|好嘞|好呢|好哒|好|行|行吧
可以|嗯嗯|嗯|哦哦|哦|噢|啊|明白了|明白|知道了|了解了|了解|懂了|收到|没事了|没事
没有了|没了|没别的了|不用了|算了|哈哈哈|哈哈|呵呵|嘻嘻|今天天气不错|天气不错|天气真好
周末愉快|祝你周末愉快|祝你愉快|祝好|保重|你是谁|你叫什么名字|你是机器人吗|吃了吗
测试一下|测试|稍等|等一下|我看看|我想想|我先忙了|先忙了|下班了
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
    return _covered(text, praise=True)


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


def _thumbs_up(text: str) -> bool:
    return any(
        c in text for c in "\U0001f44d\U0001f44f\U0001f389\U0001f60d\u2764\U0001f64f\U0001f4af"
    )


_I = re.IGNORECASE
_ACT = (
    r"\bto\s+(?:visit|buy|purchase|click|call|send|pay|download|install|subscribe|switch|invest|transfer|"
    r"go\s+to|sign\s+up)\b"
)
INJECTIONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "overrides the instructions",
        re.compile(
            r"\b(?:ignore|disregard|forget|override|bypass)\s+(?:(?:the|of|and|any|every|everything)\s+)*"
            r"(?:(?:all|any|your|previous|prior|above|earlier|preceding|system|original|initial|safety)\s+"
            r"(?:(?:of|the|and)\s+)*){1,4}"
            r"(?:instructions|prompts|directives|(?<=all\s)instruction|(?<=your\s)(?:guidelines|safeguards|"
            r"guardrails|programming|training|rules|prompt)|(?<=system\s)(?:prompt|message))\b"
            r"(?!\s+(?:about|on|for|regarding|i\s+gave))",
            _I,
        ),
    ),
    (
        "overrides the instructions",
        re.compile(
            "(?:忽略|无视|忘记|忘掉|跳过|不要理会)(?:掉)?(?:以上|上面|之前|先前|前面|上述|此前|你|你的|所有|一切|全部|任何|的|系统|原有|"
            "原来|初始|收到){1,6}(?:指令|指示|提示词|系统提示|系统设定|设定|规则|限制|安全准则|准则)"
        ),
    ),
    (
        "asks for the hidden prompt",
        re.compile(
            r"\b(?:reveal|print|show|output|repeat|leak|dump|display|tell)\b[^.\n]{0,30}\b(?:your|the)\s+"
            r"(?:(?:hidden|secret|initial|original|full|entire|exact)\s+)*"
            r"(?:system\s+(?:prompt|message|instructions?)|(?:hidden|secret|initial)\s+"
            r"(?:prompt|instructions?))",
            _I,
        ),
    ),
    (
        "asks for the hidden prompt",
        re.compile(
            "(?:输出|显示|泄露|透露|打印|重复|告诉我|展示|公开).{0,8}(?:系统提示词?|系统指令|隐藏(?:的)?(?:指令|提示词?)|初始提示词?)"
        ),
    ),
    (
        "changes who the model is",
        re.compile(
            r"\byou\s+are\s+(?:now|no\s+longer)\b[^.\n]{0,40}\b(?:dan|unrestricted|unfiltered|uncensored|"
            r"jailbroken|without\s+(?:any\s+)?(?:restrictions?|rules|limits|filters?)|"
            r"bound\s+by|an?\s+(?:assistant|ai|model)\s+(?:that|who|without|with\s+no))|"
            r"\b(?:enter|enable|activate|switch\s+to)\s+(?:the\s+)?(?:developer|god|jailbreak|admin|debug|dan)"
            r"\s+mode\b|\bdo\s+anything\s+now\b|\bjailbreak\s+mode\b",
            _I,
        ),
    ),
    (
        "changes who the model is",
        re.compile(
            "(?:开发者|越狱|上帝|管理员|调试)模式|你现在(?:是|不再是).{0,15}(?:没有(?:任何)?限制|不受(?:任何)?限制|无限制|DAN)",
            _I,
        ),
    ),
    (
        "fakes a chat role",
        re.compile(
            r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)[^>]{0,20}\|?>|"
            r"\[/?INST\]|<</?SYS>>|</(?:system|feedback|user_feedback|instructions)>|<system>|"
            r"^\s*#{2,}\s*(?:system(?:\s+(?:prompt|message))?|new\s+instructions?)\s*:?\s*$|"
            r"^\s*(?:system|assistant)\s*(?:prompt|message)?\s*:\s*(?:you|ignore|disregard|forget|obey|"
            r"from\s+now|always|never|new)\b",
            _I | re.MULTILINE,
        ),
    ),
    (
        "fakes a chat role",
        re.compile(
            r"^\s*(?:系统|助手|系统消息|系统提示)\s*[:：]\s*(?:你|忽略|无视|从现在|必须|请)",
            re.MULTILINE,
        ),
    ),
    (
        "plants a message for others",
        re.compile(
            r"\b(?:tell|inform|convince|persuade|urge|advise|instruct|ask|remind)\s+(?:all|every|any|"
            r"each|other|future)\s*(?:of\s+)?(?:the\s+|your\s+|other\s+|future\s+)*"
            r"(?:users?|customers?|clients?|people|persons?|visitors?|one|body|readers?)\b[^.\n]{0,40}"
            rf"{_ACT}|\b(?:tell|convince|persuade|urge)\s+(?:everyone|everybody|anyone)\b[^.\n]{{0,40}}{_ACT}|"
            r"\b(?:always|must|every\s+(?:answer|response|reply))\b[^\n]{0,60}\b(?:include|mention|recommend|"
            r"insert|add|link|promote|advertise|visit|buy|redirect)\b[^\n]{0,60}(?:https?://|www\.|"
            r"\b[a-z0-9-]+\.(?:com|net|io|xyz|shop|ru|cn)\b)",
            _I,
        ),
    ),
    (
        "plants a message for others",
        re.compile(
            "(?:告诉|通知|劝说|让|建议|要求)(?:所有|每个|每位|其他|任何)(?:的)?(?:用户|客户|顾客|人|访客).{0,15}(?:购买|买|访问|点击|下载|安装|注册|联系|转账|加微信|汇款)|(?:每次|总是|必须|一律).{0,30}(?:https?://|www\\.)"
        ),
    ),
    (
        "writes into the training",
        re.compile(
            r"\b(?:add|write|insert|save|store|put|inject|append)\s+(?:this|the\s+following|these|that)\b"
            r"[^.\n]{0,30}\b(?:to|into|in)\s+(?:your|the|its)\s+(?:own\s+)?(?:rules?|training(?:\s+data)?|memory|"
            r"weights|system\s+prompt|rule\s*set|fine-?tuning)|"
            r"\b(?:when|while|if)\s+(?:you\s+(?:are\s+)?)?(?:distill?(?:ing)?|extract(?:ing)?)\s+(?:the\s+|this\s+)?"
            r"(?:rules?|feedback|suggestions)\b|\bthe\s+(?:only\s+)?rules?\s+(?:you\s+)?(?:must\s+|should\s+|shall\s+)?"
            r"(?:extract|distil|output|learn)\b",
            _I,
        ),
    ),
    (
        "writes into the training",
        re.compile(
            "(?:把|将).{0,20}(?:写入|加入|添加到|存入|注入)(?:到)?(?:你的)?(?:规则|训练数据|记忆|权重|系统提示)|(?:提取|蒸馏|训练)(?:规则)?(?:时|的时候).{0,6}(?:必须|只能|请|要)"
        ),
    ),
    (
        "speaks to the judge",
        re.compile(
            r"\b(?:judge|grader|evaluator|evaluation\s+model|reward\s+model|scoring\s+model)s?\b[^.\n]{0,60}"
            r"\b(?:10\s*/\s*10|(?:score|rating|mark)\s+of\s+(?:10|ten)|(?:score|rate)\s+(?:this|it)\s+(?:10|ten)|"
            r"(?:maximum|full|highest|top|perfect)\s+(?:score|marks?|rating|points))|"
            r"\b(?:give|assign|award|return|output)\b[^.\n]{0,30}\b(?:this|my|the)\s+(?:answer|response|candidate|"
            r"feedback)\b[^.\n]{0,20}\b(?:a\s+)?(?:score\s+(?:of\s+)?(?:10|ten)|10(?:\s*/\s*10)?|full\s+marks|"
            r"(?:the\s+)?(?:maximum|highest|top)\s+(?:score|rating|marks?))",
            _I,
        ),
    ),
    (
        "speaks to the judge",
        re.compile(
            "(?:评委|评审|裁判|打分(?:器|者|模型|员)|评分(?:器|者|模型|员)|评估模型).{0,10}"
            "(?:请|必须|一定|直接|务必|应该|应当).{0,12}(?:满分|最高分|10\\s*分|十分)"
        ),
    ),
)
"""(what it does, pattern): attempts to plant instructions. Quoting one is flagged as well."""

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
