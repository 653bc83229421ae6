"""The command ``langchain-uno``: a file a subcommand."""
