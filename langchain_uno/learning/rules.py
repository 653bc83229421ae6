"""Stage "rules": what is taught of what users asked for, decided from training logs alone.

A log teaches its own rules, as in the paper. Four things change them:

- *What one person repeats and few share is taught to nobody.* A wish that its voice repeats over
  several requests, and that fewer than ``min_users`` people have, is a personal taste or a plant.
  Edits and liked answers are wishes too: what they add, and what edits take away, is checked like a
  rule. In a home of few people (fewer than twice ``min_users`` speak) nothing tells a plant from a
  wish: all is taught, and the refresh says so. Only the anonymous voice is still checked there, if
  others are named.
- *What enough people want completes the logs that did not say it.* Users name some of their wishes,
  not all; trained on partial mentions alone a module would learn to do a part each time.
- *What lone thumbs ask for*, where they teach, is drawn from the rated answers
  (:mod:`langchain_uno.learning.thumbs`).
- *What a person decided in review holds* (:mod:`langchain_uno.learning.decisions`). What is
  excluded is taught by no log and judges none. Rules that people add complete the logs like
  recurring ones, however few want them.

Which wishes are the same is told by meaning: by the embedder's vectors, then by the reranker, where
it passes its control questions (:mod:`langchain_uno.learning.plants`,
:mod:`langchain_uno.learning.wordings`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from langchain_uno.learning.acts import (
    edited_pairs,
    liked_pairs,
    rated_answers,
    thumbs_of,
    thumbs_teach,
    was_content,
)
from langchain_uno.learning.controls import believed
from langchain_uno.learning.decisions import (
    RuleRow,
    Rulings,
    instead,
    read_decisions,
    remove_what_changed,
    renew_anchors,
    rule_rows,
    write_review,
)
from langchain_uno.learning.distil import unique_rules
from langchain_uno.learning.evolve import given_rules, known_wordings, mark_reviewed
from langchain_uno.learning.plants import Mention, added, repeated_by_few, request_of
from langchain_uno.learning.thumbs import Drawn, rules_of_thumbs
from langchain_uno.learning.wordings import group_wordings, in_own_words, plain
from langchain_uno.learning.work import ClusterData, Work
from langchain_uno.records import (
    ANONYMOUS,
    Interaction,
    PreferencePair,
    RatedAnswer,
    Rule,
    RuleSet,
    digest_of,
)
from langchain_uno.reports.render import counted


def rules_stage(work: Work) -> dict[str, Any]:
    """Write ``taught.jsonl``, the clusters' recurring rules and the rules' part of the review."""
    clusters = work.clusters()
    work.progress.start("rules", len(clusters), "who wants what")
    rulings = Rulings(read_decisions(work.home), clusters)
    for cluster in clusters:
        cluster.train = [i for i in cluster.train if not rulings.is_out(i)]
        cluster.verify = [i for i in cluster.verify if not rulings.is_out(i)]
        cluster.own = {text: one.by for text, one in rulings.own[cluster.id].items()}
    train = [log_id for cluster in clusters for log_id in cluster.train]
    guarded = _is_guarded(work, train)
    refused, acts = _refused(work, train, guarded)
    done = {pair.run_id for pair in _acts([work.logs[i] for i in train])} - acts

    def is_refused(log_id: str, text: str) -> bool:
        return (work.voices[log_id], text) in refused

    given = given_rules(work)
    grouped, near = _wordings(work, train, is_refused, rulings, given)
    support = work.recipe.rules.support
    known = grouped if support is not None else {}
    on_training, on_all = rulings.on_rules(grouped), rulings.on_rules(near)
    rows = [rule_rows(c, work, grouped, is_refused, on_training) for c in clusters]
    taught: dict[str, RuleSet] = {}
    learning, before = set(train), known_wordings(work)
    for cluster in clusters:
        for log_id in cluster.run_ids:
            on_rule = partial(on_training if log_id in learning else on_all, cluster.id)
            own = rulings.teach(work.distilled[log_id], on_rule, partial(is_refused, log_id))
            taught[log_id] = own
            if log_id in given:
                now = [instead(text, on_all(cluster.id, text)) for text in given[log_id]]
                given[log_id] = [text for text in now if text is not None]
    for cluster, own_rows in zip(clusters, rows, strict=True):
        work.check_limits()
        sets = {i: taught[i] for i in cluster.train}
        _count_voices(work, cluster, sets, done)
        same = in_own_words(known, sets.values(), before.get(cluster.parent, ()))
        if cluster.by_thumbs:
            cluster.rules = _asked_by_thumbs(work, cluster, rulings, own_rows)
        elif support is not None:
            cluster.rules = recurring_rules(
                list(sets.values()),
                [work.voices[i] for i in sets],
                same,
                min_voices=work.recipe.rules.min_users if guarded else 1,
                support=support,
                given=[given.get(i, ()) for i in sets],
                weights=_ages(work, list(sets)),
            )
        cluster.rules = unique_rules([*cluster.rules, *cluster.own])
        for log_id in (*cluster.train, *cluster.verify):
            taught[log_id] = _with_more(work, cluster, taught[log_id], log_id in learning)
        for log_id in cluster.train:
            taught[log_id] = _completed(taught[log_id], cluster.rules, same)
        work.progress.advance("rules")
    mark_reviewed(work, clusters, {d.id for d in rulings.decisions}, rulings.touched)
    shown = {log_id: rules.model_dump_json() for log_id, rules in taught.items()}
    remove_what_changed(work, clusters, rulings, shown, given, dict.fromkeys(acts, True))
    work.folder.write_records("taught.jsonl", taught.values())
    work.folder.write_json("refused-acts.json", sorted(acts))
    work.folder.write_json("given.json", given)
    work.folder.write_records("clusters-rules.jsonl", clusters)
    renew_anchors(work, clusters, rulings, rows)
    write_review(work, clusters, rulings, rows)
    said = [(i, r.text) for i in train for r in work.distilled[i].with_feedback]
    recurs_among_few = sum(is_refused(*one) for one in said)
    left = sum(r.source in ("feedback", "edit") for i in train for r in taught[i].with_feedback)
    out = sum(len(s.with_feedback) for i, s in work.distilled.items() if rulings.is_out(i))
    every = sum(len(s.with_feedback) for s in work.distilled.values())
    excluded = out + max(0, len(said) - recurs_among_few - left)
    dropped = {"recurs_among_few": recurs_among_few, "excluded_in_review": excluded}
    recurring = sum(len(c.rules) for c in clusters)
    return {
        "distilled": len(said),
        "taught": left,
        "dropped": {reason: n for reason, n in dropped.items() if n},
        "held_out": every - len(said) - out,
        "acts_dropped": len(acts),
        "recurring": recurring,
        "guarded": guarded,
        "notes": _notes(work, clusters, known, guarded),
        "note": f"{left} of {counted(len(said), 'rule')} taught; for a whole cluster: {recurring}",
    }


def _count_voices(
    work: Work, cluster: ClusterData, sets: Mapping[str, RuleSet], done: Collection[str]
) -> None:
    """Count a cluster's people by words, acts and thumbs, and set whether thumbs teach it.

    Args:
        work: the refresh.
        cluster: gets ``thumbs``, ``acting``, ``people`` and ``by_thumbs``.
        sets: the rules of its training logs, by id.
        done: the logs whose edits or likes are taught.
    """
    rated = lone_thumbs(work, cluster.train)
    cluster.thumbs = thumbs_of(rated)
    cluster.acting = len({work.voices[i] for i in sets if i in done})
    saying = {work.voices[i] for i, s in sets.items() if i in done or _teaches(work, s)}
    few = len(saying) < work.recipe.rules.min_users
    cluster.by_thumbs = few and not cluster.own and thumbs_teach(rated, work.recipe)
    asking = {work.voices[i] for i, s in sets.items() if s.with_feedback}
    cluster.people = len({one.voice for one in rated} if cluster.by_thumbs else asking)


def _drawn(work: Work, cluster: ClusterData) -> Drawn:
    """Return what comes of a cluster's thumbs; asked once, also where the stage is done again."""
    rated = lone_thumbs(work, cluster.train)
    of = digest_of(*(f"{one.run_id} {one.liked}" for one in rated))
    name = f"drawn/{cluster.id}.json"  # a decision removes the folder of its cluster
    known = work.folder.read_json(name) if work.folder.has(name) else {}
    if known.get("of") != of:
        known = {"of": of, "drawn": rules_of_thumbs(work, rated)._asdict()}
        work.folder.write_json(name, known)
    return Drawn(**known["drawn"])


def _asked_by_thumbs(
    work: Work, cluster: ClusterData, rulings: Rulings, rows: list[RuleRow]
) -> list[str]:
    """Return the rules drawn from a cluster's thumbs, less or edited where review decided so.

    Args:
        work: the refresh.
        cluster: one that thumbs teach; no longer where review excluded all that they ask for.
        rulings: the decisions of people.
        rows: the cluster's rows of the review; gets a row for each rule drawn.
    """
    found, runs, _ = _drawn(work, cluster)
    rated = [one.run_id for one in lone_thumbs(work, cluster.train)]
    same: dict[str, str] = {}
    if found and rulings.texts:
        able = all(believed(work, "reranker", work.logs[i].language) for i in rated)
        reranker = work.reranker if able else None
        same = group_wordings([found], work.embedder, reranker, also=rulings.texts)
    decision_on = rulings.on_rules(same)
    kept = []
    for text in found:
        made = decision_on(cluster.id, text)
        row = RuleRow(text=text, wordings={text: runs}, people=cluster.people, drawn=True)
        if made is not None:
            row.decided.append(made.id)
            if made.what != "restore":
                rulings.touched[made.id].update(rated)
        rows.append(row)
        kept.append(instead(text, made))
    left = [text for text in kept if text is not None]
    cluster.by_thumbs = bool(left) or not found
    return left


def _notes(
    work: Work, clusters: Sequence[ClusterData], known: Mapping[str, str], guarded: bool
) -> list[str]:
    """Return what a person should read about voices, and about clusters that want the same."""
    notes = [] if guarded else [_UNGUARDED.format(work.recipe.rules.min_users)]
    unread = [c.id for c in clusters if c.by_thumbs and _drawn(work, c).unread]
    notes += [_UNREAD.format(work.teacher.model_name, ", ".join(unread))] if unread else []
    if len({work.voices[i] for i in work.logs}) == 1 and len(work.logs) > 1:
        notes.append(_ONE_VOICE)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for cluster in clusters:
        alike[tuple(sorted({known.get(r, r) for r in cluster.rules}))].append(cluster.id)
    same = [ids for rules, ids in alike.items() if rules and len(ids) > 1]
    return [*notes, *(_ALIKE.format(", ".join(ids)) for ids in same)]


def _wordings(
    work: Work,
    train: Sequence[str],
    is_refused: Callable[[str, str], bool],
    rulings: Rulings,
    given: Mapping[str, Sequence[str]],
) -> tuple[dict[str, str], dict[str, str]]:
    """Return which wordings are one rule: among training logs alone, and among all logs.

    The second only tells which wordings decisions are about.
    """
    texts = {
        i: [r.text for r in rules.with_feedback if not is_refused(i, r.text)]
        for i, rules in work.distilled.items()
    }
    learnt = [texts[i] for i in train]
    if work.recipe.rules.support is None and not rulings.texts:
        return (exact := group_wordings(learnt)), exact
    spoken = {work.logs[i].language for i in train if texts[i]}
    able = all(believed(work, "reranker", language) for language in spoken)
    reranker = work.reranker if able else None
    found = group_wordings(learnt, work.embedder, reranker, also=rulings.texts)
    if not rulings.texts:
        return found, found
    also = [*rulings.texts, *(text for taught in given.values() for text in taught)]
    return found, group_wordings(list(texts.values()), work.embedder, reranker, also=also)


def _with_more(work: Work, cluster: ClusterData, rules: RuleSet, learning: bool) -> RuleSet:
    """Return a log's rules with those that people added to its cluster, or that thumbs gave it.

    A training log has them unless its user was content with the answer as it was. A held-out log
    has them where its user asked for something; where nobody did, see
    :func:`langchain_uno.learning.verify.held_out`.
    """
    asked, more = bool(rules.with_feedback), cluster.rules if cluster.by_thumbs else [*cluster.own]
    if not more or not (asked or (learning and not was_content(work.logs[rules.run_id]))):
        return rules
    added = [Rule(text=text, source="thumbs" if cluster.by_thumbs else "own") for text in more]
    said = [rule for rule in rules.with_feedback if rule.text not in more]
    return rules.model_copy(update={"with_feedback": [*said, *added]})


_UNGUARDED = (
    "So few people in training ask for anything (fewer than twice min_users = {}) that nothing "
    "tells a plant from a wish: all is taught."
)


_UNREAD = (
    "The teacher {!r} wrote no readable rules for the thumbs of {}: their modules are verified by "
    "the answers that people rated. If it is so again, name a stronger one (--teacher NAME)."
)


_ALIKE = (
    "The clusters {} want the same. If their requests are of one kind, a larger cluster.min_size "
    "makes one of them, which has more people to learn from and to verify on."
)


_ONE_VOICE = (
    "All feedback of this log is one voice, which can't decide what ships: give users or threads "
    "ids, or count every log as a voice (--set rules.voices=logs)."
)


def wanted_rules(rules: RuleSet) -> list[str]:
    """Return the rules an answer should follow: the completed list, else the log's own."""
    return [rule.text for rule in (rules.wanted or rules.with_feedback)]


def _teaches(work: Work, rules: RuleSet) -> bool:
    """Whether a log's words can teach: a judge must be able to tell what follows them."""
    language = work.logs[rules.run_id].language
    return bool(rules.with_feedback) and believed(work, "judge", language)


def lone_thumbs(work: Work, log_ids: Sequence[str]) -> list[RatedAnswer]:
    """Return the answers among these that were liked or disliked, and no more was said of them."""
    alone = [work.logs[i] for i in log_ids if not work.distilled[i].with_feedback]
    return rated_answers(alone, work.voices)


def _is_guarded(work: Work, train: Collection[str]) -> bool:
    settings = work.recipe.rules
    if settings.voices == "logs" or settings.min_users < 2:
        return True  # the settings ask for no guard, so there is nothing to warn of
    speaking = {
        work.voices[i] for i in train if work.distilled[i].with_feedback or work.logs[i].correction
    }
    speaking = speaking or {one.voice for one in lone_thumbs(work, list(train))}
    return len(speaking) >= 2 * settings.min_users


def _refused(
    work: Work, train: Sequence[str], guarded: bool
) -> tuple[set[tuple[str, str]], set[str]]:
    """Return what is not taught: rules as (voice, text), and logs whose edits or likes are not.

    Without a guard only the anonymous voice is checked, and only beside named people.
    """
    suspected = {work.voices[i] for i in train}
    if not guarded:
        suspected = {ANONYMOUS} if any(v.startswith("user:") for v in suspected) else set()
    least = work.recipe.rules.min_users
    if work.recipe.rules.voices == "logs" or least < 2:
        return set(), set()
    cluster_of = {i: cluster.id for cluster in work.clusters() for i in cluster.train}
    logs = [work.logs[i] for i in train]
    wishes = [(i, r.text, False) for i in train for r in work.distilled[i].with_feedback]
    wishes += [(p.run_id, text, True) for p in _acts(logs) for text in added(p.rejected, p.chosen)]

    def mention(log_id: str, text: str) -> Mention:
        log = work.logs[log_id]
        return Mention(text, work.voices[log_id], request_of(log), cluster_of[log_id])

    able = all(believed(work, "reranker", work.logs[i].language) for i, *_ in wishes)
    ask = work.reranker if able else None
    repeated = partial(repeated_by_few, embedder=work.embedder, min_users=least, reranker=ask)
    marked = repeated([mention(i, text) for i, text, _ in wishes])
    bad = [
        one for one, m in zip(wishes, marked, strict=True) if m and work.voices[one[0]] in suspected
    ]
    rules = {(work.voices[i], text) for i, text, act in bad if not act}
    # What edits take away is checked by itself: who takes it away does not vouch for who adds it.
    gone = [(p.run_id, text) for p in edited_pairs(logs) for text in added(p.chosen, p.rejected)]
    taken = repeated([mention(i, text) for i, text in gone])
    acts = {i for i, _, act in bad if act}
    acts |= {i for (i, _), m in zip(gone, taken, strict=True) if m and work.voices[i] in suspected}
    # With a rule its log's edit falls; with an edit the rules that came of it.
    edited = [i for i in train if edited_pairs([work.logs[i]])]
    said = {i: {(work.voices[i], r.text) for r in work.distilled[i].with_feedback} for i in edited}
    while True:
        rules |= {
            (work.voices[i], rule.text)
            for i in acts & said.keys()
            for rule in work.distilled[i].with_feedback
            if rule.source == "edit"
        }
        fallen = {i for i in edited if said[i] & rules} - acts
        if not fallen:
            return rules, acts
        acts |= fallen


def _acts(logs: Sequence[Interaction]) -> list[PreferencePair]:
    """Return what people did in place of words: answers that they wrote or chose."""
    return [*edited_pairs(logs), *liked_pairs(logs)]


def recurring_rules(
    sets: Sequence[RuleSet],
    voices: Sequence[str],
    same: Mapping[str, str],
    *,
    min_voices: int,
    support: float,
    given: Sequence[Collection[str]] | None = None,
    weights: Sequence[float] | None = None,
) -> list[str]:
    """Return the rules that recur in a cluster, the most supported first.

    Args:
        sets: rules of the cluster's training logs.
        voices: whose vote each log is.
        same: which wordings are one rule (:func:`group_wordings`).
        min_voices: voices that must name a rule; it must be named in two logs besides.
        support: share of the voices that ask for anything which must name it.
        given: for each log the rules that the module which answered was taught: nobody asks for
            what they have got, so such a log says nothing about them, unless it names them.
        weights: how much each log's vote counts, in (0, 1]; None: all fully.
    """
    weight = list(weights) if weights is not None else [1.0] * len(sets)
    named: dict[str, dict[str, float]] = defaultdict(dict)
    logs: Counter[str] = Counter()
    asked: dict[str, float] = {}
    excused: dict[str, set[str]] = defaultdict(set)
    by_plain = {plain(text): head for text, head in same.items()}
    for i, (rules, voice) in enumerate(zip(sets, voices, strict=True)):
        heads = {same.get(r.text, r.text) for r in rules.with_feedback}
        if not heads:
            continue
        asked[voice] = max(asked.get(voice, 0.0), weight[i])
        logs.update(heads)
        for head in heads:
            named[head][voice] = max(named[head].get(voice, 0.0), weight[i])
        for text in given[i] if given else ():
            excused[by_plain.get(plain(text), text)].add(voice)
    found = []
    for head, by in named.items():
        silent = sum(w for v, w in asked.items() if v not in by and v not in excused[head])
        share = sum(by.values()) / (sum(by.values()) + silent)
        if len(by) >= min_voices and logs[head] >= 2 and share >= support:
            found.append((share, head))
    return [head for _, head in sorted(found, key=lambda one: (-one[0], one[1]))]


def _completed(rules: RuleSet, recurring: Sequence[str], same: Mapping[str, str]) -> RuleSet:
    """Return a log's rules with ``wanted`` set: what recurs in the cluster, then its own."""
    own = {same.get(r.text, r.text): r.source for r in rules.with_feedback}
    if not own:
        return rules  # who asked for nothing says nothing about the answer
    wanted = [Rule(text=text, source=own.get(text, "aggregated")) for text in recurring]
    wanted += [Rule(text=text, source=own[text]) for text in own if text not in recurring]
    return rules.model_copy(update={"wanted": wanted})


def _ages(work: Work, log_ids: Sequence[str]) -> list[float]:
    """Return how much each log's vote counts by its age."""
    half = work.recipe.rules.half_life_days
    if half is None:
        return [1.0] * len(log_ids)
    newest: datetime = max(log.created_at for log in work.logs.values())
    days = [(newest - work.logs[i].created_at).total_seconds() / 86_400 for i in log_ids]
    return [float(0.5 ** (d / half)) for d in days]
