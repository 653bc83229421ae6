"""The same surroundings as the package's tests: no hub, no telemetry."""

from __future__ import annotations

from tests.conftest import repo, tiny_model_path

__all__ = ["repo", "tiny_model_path"]
