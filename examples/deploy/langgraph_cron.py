"""Let a LangGraph server refresh its home every Monday.

python examples/deploy/langgraph_cron.py

The server runs `langgraph.json` of this repository (`langgraph dev`, or LangSmith Deployment). Its
graph `refresh` learns from the home that LANGCHAIN_UNO_HOME names.
"""

from __future__ import annotations

import argparse

from langgraph_sdk import get_sync_client


def main() -> None:
    """Make the cron job, or run the graph once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:2024", help="of the LangGraph server")
    parser.add_argument("--schedule", default="0 3 * * 1", help="as cron writes it, in UTC")
    parser.add_argument("--now", action="store_true", help="run it once, and wait")
    given = parser.parse_args()
    client = get_sync_client(url=given.url)
    if given.now:
        print(client.runs.wait(None, "refresh", input={}))
    else:
        print(client.crons.create("refresh", schedule=given.schedule, input={}))


if __name__ == "__main__":
    main()
