"""Fifty customers talk to a model; it learns what they want, and answers better.

    python examples/quickstart.py                 the bundled model; minutes on two cores
    python examples/quickstart.py --max-steps 2   only to see it run

The customers are simulated (``langchain_uno.demo``). All else is what an app would do.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from random import Random

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.demo.answers import check_answer
from langchain_uno.demo.drawing import make_query
from langchain_uno.demo.language import load_language
from langchain_uno.demo.speech import say_wishes

FAMILY = "product"
WISHES = ("bullets", "next_step")  # what the customers want, and nobody told the model

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--home", default=".demo/quickstart", help="where logs and releases are kept")
parser.add_argument("--customers", type=int, default=50)
parser.add_argument("--max-steps", type=int, help="cap on training steps")
args = parser.parse_args()

language, rng = load_language(), Random(7)
chat = UNOChatModel(home=args.home)

# 1. Serve. The handler journals every answer; feedback comes in as people give it.
with UNOFeedbackHandler(home=args.home) as handler:
    for customer in range(args.customers):
        query = make_query(language, language.families[FAMILY], rng, unseen=False)
        metadata = {"user_id": f"customer-{customer}"}
        answer = chat.invoke(query.text, config={"callbacks": [handler], "metadata": metadata})
        met = check_answer(language, query, answer.text).met
        missed = [rule for rule in WISHES if rule not in met]
        if missed:
            said = say_wishes(language, missed, rng, unseen_frames=False, unseen_wordings=False)
            handler.feedback(answer.id, comment=" ".join(said), user_id=f"customer-{customer}")
        else:
            handler.feedback(answer.id, score=1.0, user_id=f"customer-{customer}")
    counts = handler.stats()
    print(f"{counts['recorded']} answers and {counts['feedback']} remarks recorded")

# 2. Learn. A separate process, as a nightly job would be. All ask alike, so one cluster will do:
# it has more people to verify with than several have.
train = [sys.executable, "-m", "langchain_uno", "train", "--home", args.home]
train += ["--set", "cluster.min_size=25"]
if args.max_steps:
    train += ["--max-steps", str(args.max_steps)]
subprocess.run(train, check=True)

# 3. Serve again: a new question, about a thing that no log names.
query = make_query(language, language.families[FAMILY], Random(9), unseen=False)
print(f"\nQuestion: {query.text}")
for mode in ("base", "uno"):
    answer = UNOChatModel(home=args.home, mode=mode).invoke(query.text)
    met = check_answer(language, query, answer.text).met
    share = f"{sum(rule in met for rule in WISHES)} of {len(WISHES)} wishes met"
    print(f"\n--- {mode} ({answer.response_metadata['route']}; {share})\n{answer.text}")
