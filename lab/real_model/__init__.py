"""A study on a real language model; `run.py` says how."""
