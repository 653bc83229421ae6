"""``python -m langchain_uno.demo`` is ``langchain-uno demo``."""

from langchain_uno.demo.run import app

if __name__ == "__main__":
    app(prog_name="python -m langchain_uno.demo")
