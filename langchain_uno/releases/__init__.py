"""Immutable releases: manifest, publish, load, rollback."""
