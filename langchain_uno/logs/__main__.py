"""``python -m langchain_uno.logs`` is ``langchain-uno logs``."""

from langchain_uno.cli import main

if __name__ == "__main__":
    main("logs")
