"""A simulated service whose truth a program checks: tasks, rules, users, noise, and their feedback.

It makes the bundled model's training data, its final test, and the service of the demo. Its
figures say that the pipeline works; they say nothing about a real model's gains.
"""
