"""``python -m langchain_uno.demo`` is ``langchain-uno demo``."""

from langchain_uno.cli import main

if __name__ == "__main__":
    main("demo")
