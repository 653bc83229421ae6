"""The command ``langchain-uno``: a file a subcommand."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(*words: str) -> None:
    """Run the command line.

    Args:
        words: subcommands to put before what the user typed; ``python -m langchain_uno.train``
            gives "train".
    """
    from langchain_uno.cli.command import app

    app(args=[*words, *sys.argv[1:]], prog_name="langchain-uno")
