"""``python -m langchain_uno.train`` is ``langchain-uno train``."""

from __future__ import annotations

from langchain_uno.cli.train import app, main, refresh_home

__all__ = ["app", "main", "refresh_home"]

if __name__ == "__main__":
    main()
