"""``python -m langchain_uno.logs`` is ``langchain-uno logs``."""

from langchain_uno.cli.logs import app

if __name__ == "__main__":
    app(prog_name="python -m langchain_uno.logs")
