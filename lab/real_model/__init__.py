"""Studies on real language models: what each role can do, and whether a refresh helps."""
