"""A home's own settings: ``settings.toml``, one per namespace, read by commands and handler.

[logs]
chroma = "http://chroma.internal:8000"    # default: "embedded", a folder of the home
retention_days = 90                       # default: kept until somebody forgets it

[redaction]
kinds = ["email", "credit_card", "ip", "phone", "secret"]    # these are the default

[serving]
max_adapters = 32                         # default: all of the release are loaded

[recipe.expert]                           # any setting of the recipe
rank = 32
"""

from __future__ import annotations

import sys
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from langchain_uno.errors import ConfigError
from langchain_uno.home import Home

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["HomeSettings", "LogSettings", "RedactionSettings", "ServingSettings", "load_settings"]


class LogSettings(BaseModel):
    """Where the logs' index lies, and how long logs are kept."""

    model_config = ConfigDict(extra="forbid")

    chroma: str = "embedded"
    """``embedded``, or the URL of a Chroma server (many hosts, one store)."""
    chroma_tenant: str = "langchain-uno"
    """Chroma's tenant on the server; each namespace is a database of it."""
    retention_days: float | None = Field(default=None, gt=0)
    """Logs older than this are forgotten by each refresh and by ``logs retain``."""


class RedactionSettings(BaseModel):
    """What is taken out before storing."""

    model_config = ConfigDict(extra="forbid")

    kinds: list[str] | None = None
    """None: all that :mod:`langchain_uno.logs.redaction` knows; an empty list: nothing."""


class ServingSettings(BaseModel):
    """How releases are served."""

    model_config = ConfigDict(extra="forbid")

    max_adapters: int | None = Field(default=None, ge=1)
    """Adapters loaded at a time; the one used longest ago makes room. None: all that are served."""


class HomeSettings(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    logs: LogSettings = Field(default_factory=LogSettings)
    redaction: RedactionSettings = Field(default_factory=RedactionSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the recipe; checked when it is loaded."""


def load_settings(home: Home) -> HomeSettings:
    """Return the namespace's settings; all defaults when it has no ``settings.toml``.

    Raises:
        ConfigError: the file can't be read, is not TOML, or has an unknown or bad value.
    """
    name = str(home.settings)
    if not home.settings.is_file():
        return HomeSettings()
    try:
        return HomeSettings.model_validate(tomllib.loads(home.settings.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{name!r} can't be read ({error.strerror or error}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name!r} is not valid TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{name!r} has a bad value at {where!r}: {first['msg']}.") from error
