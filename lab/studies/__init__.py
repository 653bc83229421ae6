"""Proof, or not: systems side by side on worlds that none of them was set on.

    answers.py      what a system answers, and what a program finds in it
    rivals.py       what people would do instead: retrieved feedback, a memory of rules
    everywhere.py   one kind of module everywhere, from one refresh that made all kinds
    choices.py      from those, without more training: UNO, UNO-Single, the paper's rule, ablations
    study.py        systems x seeds x noise x variants, one cell at a time, resumable
    results.py      results that are made once, shared by processes
    intervals.py    paired intervals, grouped by user
    figures.py      from cells to figures; tables.py to tables and pictures
    poison.py       planted rules: what gets through, with and without the defences
    rounds.py       a service that goes on: families come, wishes drift, modules live on
    ablations.py    one thing changed at a time: clustering, losses, filters, voices, rank
    judge_audit.py  whether the judge agrees with the truth, and what moves it that should not
    calibrate.py    the gap's threshold, fitted to one's own clusters
    memorybench.py  MemoryBench's test rows answered in its format

``python -m lab.studies --help``. Figures of the bundled model say that the system
works as it should; they say nothing about a real model's gains.
"""
