"""A LangGraph agent with a tool, and the handler that records its answers and what users say.

    python examples/agent_with_feedback.py

The handler goes into the agent's callbacks: one record a model run, tool calls included. The next
turn of a thread is feedback on the answer before it.
"""

from __future__ import annotations

import argparse
from typing import Any
from uuid import uuid4

from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from langchain_uno import UNOChatModel, UNOFeedbackHandler

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--home", default=".demo/agent", help="where logs and releases are kept")
parser.add_argument("--model", help="a folder, hub name or server URL; default: the bundled one")
args = parser.parse_args()


def get_price(item: str) -> str:
    """Get the price."""
    return f"{10 + len(item)}"


model = UNOChatModel(home=args.home, model=args.model)
agent: Any = create_agent(model, tools=[get_price], checkpointer=InMemorySaver())
handler = UNOFeedbackHandler(home=args.home)
config: RunnableConfig = {
    "callbacks": [handler],
    "configurable": {"thread_id": str(uuid4())},
    "metadata": {"user_id": "ada"},
    "recursion_limit": 8,
}

state = agent.invoke({"messages": [("user", "Get the price for item Bolina.")]}, config)
for message in state["messages"]:
    print(f"{message.type:>6}: {message.text or getattr(message, 'tool_calls', '')}")

# A thumb from the app's user interface, by the id of the message that it showed.
answer = state["messages"][-1]
handler.feedback(answer.id, key="dislike", score=0.0, user_id="ada")

# The user goes on in the same thread: what they say is feedback on the answer before it.
agent.invoke({"messages": [("user", "Please add a next step.")]}, config)

handler.close()
print(f"\n{handler.stats()}")
print(f"See them:   langchain-uno logs stats --home {args.home}")
print(f"Learn:      langchain-uno train --home {args.home}")
