"""Attempts to plant instructions in feedback: what they look like. Data for the filters.

Patterns name what users do not say of answers; a user who takes back *their own* wish is not one.
English and Chinese. What gets past them meets typed prompts that treat it as data, aggregation that
wants several users, and a verifier.
"""

from __future__ import annotations

import re

__all__ = ["INJECTIONS"]

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
    (
        "claims to be in charge",
        re.compile(
            r"\b(?:i\s+am|i'm|as|this\s+is)\s+(?:the|your|an?)\s+(?:system\s+)?(?:developers?|admin(?:istrator)?|"
            r"owner|operator|creator|root\s+user|supervisor)\b[^\n]{0,60}\b(?:turn|switch)\s+off|\b(?:i\s+am|i'm|as)\s+"
            r"(?:the|your|an?)\s+(?:system\s+)?(?:developers?|admin(?:istrator)?|owner|operator|creator)\b[^\n]{0,60}"
            r"\b(?:order|command|disable|deactivate|remove|unlock|override)\b|"
            r"\b(?:disable|deactivate|turn\s+off|switch\s+off|remove)\s+(?:all\s+)?(?:your|the)\s+"
            r"(?:safety|content|moderation|filters?|safeguards?|guardrails?|restrictions?)\b|"
            r"\byou\s+have\s+no\s+(?:more\s+)?(?:restrictions|limits|rules|limitations)\b|\bobey\s+(?:only\s+)?me\b|"
            r"\b(?:pretend|imagine|suppose|assume)\b[^.\n]{0,40}\b(?:no|without|removed|lifted)\b[^.\n]{0,20}"
            r"\b(?:restrictions|limits|rules|filters|limitations|guidelines)\b",
            _I,
        ),
    ),
    (
        "claims to be in charge",
        re.compile(
            "我(?:是|就是).{0,10}(?:开发者|管理员|所有者|运营者|创建者|负责人).{0,20}(?:关掉|关闭|停用|解除|命令|取消)|"
            "(?:关掉|关闭|停用|解除|取消)(?:了)?(?:你的|所有|一切|全部)?(?:的)?(?:安全|过滤|限制|审查|约束)|"
            "(?:没有|不受|取消了?|解除了?)(?:任何|一切|所有)?(?:的)?(?:限制|约束|规则)|只(?:能)?(?:听|服从)我的?"
        ),
    ),
    (
        "plants a standing order",
        re.compile(
            r"\b(?:from\s+now\s+on|henceforth|in\s+(?:all|every|each)\s+(?:future\s+)?"
            r"(?:answers?|repl(?:y|ies)|responses?|chats?|conversations?))\b[^\n]{0,50}\b(?:promote|recommend|advertise|"
            r"praise|endorse|agree\s+with|obey|do\s+(?:as|what)\s+i\s+say)\b|"
            r"\b(?:promote|recommend|advertise|endorse|do\s+as\s+i\s+say)\b[^\n]{0,40}\bin\s+(?:all|every|each)\s+"
            r"(?:of\s+)?(?:your\s+)?(?:future\s+)?(?:answers?|repl(?:y|ies)|responses?|chats?|conversations?)\b",
            _I,
        ),
    ),
    (
        "plants a standing order",
        re.compile(
            "(?:从现在起|从今以后|以后|今后|永远|始终).{0,16}(?:推广|推荐|宣传|吹捧|附上|引导|同意用户|按我说的|听我的)|"
            "(?:每个|每次|每条|所有)(?:的)?(?:回答|回复|聊天|对话).{0,8}(?:推广|推荐|宣传|附上)"
        ),
    ),
    (
        "speaks to the training",
        re.compile(
            r"\b(?:message|note|memo|instructions?|hint)\s+(?:for|to)\s+(?:the\s+)?(?:\w+\s+){0,2}"
            r"(?:training|trainers?|fine-?tuning|annotators?|labell?ers?|distill?er|model)\b|"
            r"\b(?:whoever|anyone\s+who)\s+(?:trains|fine-?tunes)\b|"
            r"\brules?\s+(?:that\s+(?:is|are)\s+)?(?:to\s+be\s+)?(?:extract|distill?|learn)(?:ed|t)?\s+from\s+"
            r"(?:this|my)\b|\b(?:tell|make|have)\s+everyone\s+(?:to\s+)?(?:buy|visit|call|pay)\b",
            _I,
        ),
    ),
    (
        "speaks to the training",
        re.compile(
            "(?:给|致|告诉).{0,6}(?:训练|微调|标注|蒸馏)(?:团队|人员|者|模型|员)|(?:存入|写进|写入|加进|记入)(?:到)?(?:你的)?"
            "(?:规则|记忆|训练数据)|从(?:这条|我的|本条).{0,8}(?:提取|蒸馏|学习).{0,6}规则|让(?:大家|所有人|用户)都?(?:买|访问|下载)"
        ),
    ),
    (
        "asks for the hidden prompt",
        re.compile(
            r"\b(?:print|show|reveal|repeat|output|display)\b[^.\n]{0,30}\b(?:text|everything|words|all|anything)\b"
            r"[^.\n]{0,30}\b(?:above|before)\s+(?:this|the|our)\s+(?:conversation|chat|dialog(?:ue)?)\b",
            _I,
        ),
    ),
    (
        "asks for the hidden prompt",
        re.compile(
            "(?:对话|聊天)(?:开始)?(?:之前|以前|前|上面).{0,12}(?:内容|文字|东西|一切).{0,10}(?:给我看|打印|输出|显示|告诉我)|"
            "(?:打印|输出|显示|复述).{0,8}(?:对话|聊天)(?:开始)?(?:之前|以前|前|上面)"
        ),
    ),
    (
        "plants a message for others",
        re.compile(
            "(?:说服|劝|骗|通知|让)(?:其他|别的|所有|全部)(?:的)?(?:客户|用户|顾客|人).{0,12}(?:发给我|发送|交出|告诉我|付款|领取|拨打)"
        ),
    ),
    (
        "speaks to the judge",
        re.compile(
            "(?:评委|评审|裁判|评分员?|打分|评估).{0,24}(?:给|打|评)(?!了).{0,10}(?:满分|最高分|10\\s*分|十分)",
        ),
    ),
)
"""(what it does, pattern): attempts to plant instructions. Quoting one is flagged as well."""
