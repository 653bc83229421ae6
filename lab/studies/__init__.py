"""Studies on worlds that nothing was set on: systems side by side, planted rules, rounds.

    systems.py   base, retrieval, rules in the prompt, experts or critics everywhere, UNO
    rivals.py    what people would do instead of training
    poison.py    planted rules: what gets through
    rounds.py    a service that goes on, refreshed again and again
    results.py   results that are made once, shared by processes
    tables.py    their tables

``python -m lab.studies --help``. Figures of the bundled model say that the pipeline works as it
should. They say nothing about a real model's gains.
"""
