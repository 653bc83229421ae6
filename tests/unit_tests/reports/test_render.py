"""The pages of a report: self-contained, of bounded size, and what others wrote stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from langchain_uno.records import REFLECTIVE, Cluster
from langchain_uno.releases.summary import win_rate_of
from langchain_uno.reports import cluster_map
from langchain_uno.reports.render import render_html, render_markdown, shown
from langchain_uno.reports.store import MapPoint, Report
from tests.unit_tests.reports.report_parts import cluster, report, verified

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "section", "article",
    "h1", "h2", "h3", "h4", "h5", "p", "ul", "li", "dl", "dt", "dd", "div", "span", "bdi", "a",
    "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "svg", "circle", "text",
}  # fmt: skip

PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</div></main><iframe src=https://evil.example></iframe>",
    "<svg/onload=alert(1)>",
    "' onmouseover='alert(1)",
    "[click](javascript:alert(1)) ![x](https://evil.example/a.png)",
    "```\n</code></pre><b>out</b>\n```\n# a heading",
    "a `` b ` c ```` d\n\n<script>alert(2)</script>",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt;",
    "user\u202egnp.exe\u2066 \x1b[31mred\x00 \ud800",
]


class Page(HTMLParser):
    """What a browser would make of a page: its tags, their attributes, its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_others_wrote_is_text_in_html(payload: str) -> None:
    plain, page = Page(render_html(report("quagga"))), Page(render_html(report(payload)))
    assert page.open == []
    assert page.tags == plain.tags  # not one tag more or less
    assert {(tag, name) for tag, name, _ in page.attributes} == {
        (tag, name) for tag, name, _ in plain.attributes
    }
    # rule, example, suggestion, note, verdict and the rest: as often as a harmless word
    visible = squeezed(shown(payload))
    places = plain.text.count("quagga")
    assert places >= 20
    assert squeezed(page.text).count(visible) >= places


def test_a_page_asks_nothing_of_anybody() -> None:
    page = Page(render_html(report("see https://evil.example/x.png")))
    assert set(page.tags) <= TAGS
    links = [value for _, name, value in page.attributes if name in ("href", "src", "action")]
    assert links and all(link.startswith("#") for link in links)
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    style = "".join(re.findall(r"<style>(.*?)</style>", render_html(report()), re.S))
    assert "url(" not in style and "@import" not in style
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def without_code(markdown: str) -> str:
    """A Markdown text less its fenced blocks and code spans, by CommonMark's rules for both."""
    left, fence = [], ""
    for line in markdown.split("\n"):
        ticks = re.match(r"(`{3,})(text)?$", line)
        if fence:
            if ticks and not ticks[2] and len(ticks[1]) >= len(fence):
                fence = ""
        elif ticks and ticks[2]:
            fence = ticks[1]
        else:
            left.append(line)
    assert not fence
    escaped = re.sub(r"\\[^\w\s]", "", "\n".join(left))
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "CODE", escaped)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_others_wrote_is_text_in_markdown(payload: str) -> None:
    plain, made = render_markdown(report("plain")), render_markdown(report(payload))
    outside = without_code(made)
    assert not re.search(r"[<>\[\]]|\n# a heading", outside)
    assert outside.count("\n#") == without_code(plain).count("\n#")
    assert outside.count("CODE") == without_code(plain).count("CODE")
    assert "\u202e" not in made and "\x1b" not in made and "\x00" not in made
    assert made.encode("utf-8")


def test_marks_that_turn_a_text_are_replaced_and_those_that_join_letters_stay() -> None:
    joined = (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f4bb\ttab\nline"
    )
    assert shown(joined) == joined
    assert shown("a\u202eb\u2067c\x07d\ud800e\r\nf") == "a\ufffdb\ufffdc\ufffdd\ufffde\nf"
    assert shown(7) == 7


def test_a_page_is_below_5_mb_however_many_clusters_there_are() -> None:
    long = "<&\"'" * 800  # every character becomes five
    clusters = [cluster(f"c{n}", long) for n in range(300)]
    large = report("plain", clusters=0).model_copy(
        update={"clusters": clusters, "not_shown": 9_700, "routes": {"expert": 10_000}}
    )
    html = render_html(large)
    assert 3_000_000 < len(html.encode()) < 5_000_000
    told = len(re.findall(r'<article id="c', html))
    assert 0 < told < 300
    assert f"{10_000 - told:,} further clusters are not shown here" in html
    assert len(render_markdown(large).encode()) < 5_000_000


def test_ten_thousand_small_clusters_and_the_largest_report_that_a_refresh_makes() -> None:
    ordinary = "Please write the answer as a list with the date on top. " * 50
    large = report(ordinary, clusters=100, not_shown=9_900)
    assert "9,9" in render_html(large)
    assert len(render_html(large).encode()) < 5_000_000


def test_figures_stand_in_the_page() -> None:
    text = squeezed(Page(render_html(report())).text)
    for figure in (
        "0.75 (0.40–0.90)",
        "0.20 on 7 logs. An expert is tried first",
        "base 40, module 60 (1.5 times as many)",
        "3 people, 4 logs; recurs",
        "1 person, 3 logs: it is repeated, and too few people share it",
        "6 won, 2 tied, 1 lost",
        "11 of 12 right (en)",
        "20 of them say what they want, in words or by an edit",
        "30 % of all differences",
        "1.3 MB",
    ):
        assert figure in text, figure


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"gap": 1.0, "people": 2, "acting": 5},
            "1.00 on 7 logs. An expert is tried first: more people edited answers or chose others "
            "(5) than said what they want (2). ",
        ),
        ({"gap": 0.2, "acting": 5}, "An expert is tried first: the model guesses most of what"),
        ({"gap": None}, "Unknown: nothing could be compared with what the model guesses. An "
         "expert is tried first. "),
        ({"gap": 0.9, "low": False}, "0.90 on 7 logs. A critic is tried: users ask for what"),
        ({"gap": 0.2, "reports": []}, "An expert would be tried first: the model guesses"),
        ({"gap": 0.9, "low": False, "reports": []}, "A critic would be tried: users ask"),
        ({"change": "kept", "reports": [verified()]}, "An expert would be tried first: the model"),
    ],
)  # fmt: skip
def test_the_gap_says_what_is_tried_and_why(facts: dict[str, object], said: str) -> None:
    one = report().model_copy(update={"clusters": [cluster(**facts)]})
    for text in (Page(render_html(one)).text, render_markdown(one)):
        assert said in squeezed(text) + " "


@pytest.mark.parametrize(
    ("decided", "route", "said"),
    [
        (None, "base", "Nothing was verified."),
        (verified(), "expert", "It beat the base model"),
        (verified(), "base", "It passed alone, but not among all"),
        (verified(passed=False, undecided=True, needed=4), "base", "about 4 more people"),
        (verified(passed=False, undecided=True, needed=1), "base", "about 1 more person"),
        (verified(passed=False, undecided=True, reason="too new"), "critic", "Undecided: too new."),
        (verified(passed=False), "base", "It was not better"),
        (verified(passed=False, elsewhere={"harm": "x"}), "base", "but got worse elsewhere"),
    ],
)
def test_a_decision_says_what_decided_or_would(decided: object, route: str, said: str) -> None:
    one = cluster(decided=decided, route=route, change="none" if route == "base" else "gained")
    made = report().model_copy(update={"clusters": [one]})
    assert said in squeezed(Page(render_html(made)).text)
    assert said in render_markdown(made).replace("\\", "")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            {"asked": 40, "kept": 9, "base_kept": 31, "people": 7, "win_rate": 0.5, "harm": "x"},
            "Elsewhere, the expert: 9 of 40 general instructions kept, 31 by the base; strays "
            "from other clusters: win rate 0.50 (7 people); worse than the base.",
        ),
        (
            {"base_kept": 2},
            "Elsewhere, the expert: not asked, since the base keeps 2 of the general instructions.",
        ),
    ],
)
def test_how_a_module_does_elsewhere_is_said_in_one_line(found: object, said: str) -> None:
    made = report().model_copy(update={"clusters": [cluster(reports=[verified(elsewhere=found)])]})
    assert said in squeezed(Page(render_html(made)).text)
    assert f"- {said}\n" in render_markdown(made).replace("\\", "")
    assert "Elsewhere" not in render_html(report())


def test_a_module_that_was_compared_on_nothing_has_no_win_rate() -> None:
    unknown = verified(passed=False, undecided=True, n=0, win_rate=0.0, interval=(0.0, 1.0))
    bare = cluster(reports=[unknown], decided=unknown, examples=[])
    made = report().model_copy(update={"clusters": [bare]})
    assert "win rate unknown, 0 requests" in render_markdown(made)
    assert "0.00" not in render_html(made)
    told = Cluster(id="c0", size=9, route="critic", reports=[unknown])
    assert win_rate_of(told) == "-"


def test_what_is_not_known_is_said() -> None:
    bare = cluster(
        gap=None,
        low=True,
        decided=None,
        reports=[],
        examples=[],
        base_tokens=None,
        module_tokens=None,
        module_bytes=None,
        request="",
    )
    made = report(points=[], explained=None, coverage=None).model_copy(update={"clusters": [bare]})
    text = squeezed(Page(render_html(made)).text)
    for said in (
        "Unknown: nothing could be compared",
        "Nothing was verified",
        "Tokens an answerunknown",
        "Coverageunknown",
        "There is no map",
        "Unknown: no answers were compared",
        "typical request not shown",
    ):
        assert said in text, said


def test_a_map_shows_every_point_filled_where_a_module_answers() -> None:
    points = [MapPoint(x=i, y=-i, cluster="c0", route="expert") for i in range(5)]
    points += [MapPoint(x=9, y=i, cluster="c<1>", route="base") for i in range(3)]
    svg = cluster_map(points)
    assert svg.count("<circle") == 8
    assert svg.count('fill="none"') == 3
    assert "c&lt;1&gt;</text>" in svg and "c<1>" not in svg
    at = [float(x) for x in re.findall(r'c[xy]="([\d.-]+)"', svg)]
    assert min(at) >= 0 and max(at) <= 640
    assert cluster_map([]) == ""
    assert cluster_map(points[:1]).count("<circle") == 1


def test_all_routes_have_a_page() -> None:
    for route in (*REFLECTIVE, "expert", "base"):
        assert f">{route}</span>" in render_html(
            Report.model_validate(
                {**report().model_dump(), "clusters": [cluster(route=route).model_dump()]}
            )
        )
