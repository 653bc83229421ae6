"""Serving: which release and which cluster answer a request, and how releases are replaced."""
