"""``python -m langchain_uno`` is ``langchain-uno``."""

from langchain_uno.cli import main

if __name__ == "__main__":
    main()
