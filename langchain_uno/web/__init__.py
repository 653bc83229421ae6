"""What speaks HTTP: feedback from browsers, and what the LangGraph server serves."""
