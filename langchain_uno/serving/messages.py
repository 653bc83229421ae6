"""LangChain's messages at the moment of serving: see :mod:`langchain_uno.messages`."""

from langchain_uno.messages import from_langchain

__all__ = ["from_langchain"]
