"""The index on a Chroma server: many hosts, one store. Each host keeps a journal of its own.

A namespace is a database of Chroma's own (``uno-<namespace>``), under one tenant, so that no name
reaches another's records. The token, where the server wants one, comes from
``LANGCHAIN_UNO_CHROMA_TOKEN`` and is neither stored nor logged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar
from urllib.parse import urlsplit

from langchain_uno.errors import ConfigError, StoreError, UNOError
from langchain_uno.home import safe_name
from langchain_uno.logs.index import COLLECTION, PAGE, InteractionCollection, brief
from langchain_uno.models.protocols import Known

ENV_TOKEN = "LANGCHAIN_UNO_CHROMA_TOKEN"  # noqa: S105 - a variable's name


class ServerIndex(InteractionCollection):
    """The collection in one database of a running ``chroma run`` (or any Chroma) server.

    Args:
        url: ``http://host:port`` or ``https://host[:port]``, nothing behind it.
        tenant: Chroma's tenant; made when missing.
        namespace: becomes the database; made when missing.
        known: as what the embedder is known whose vectors go in; its fingerprint comes first.

    Raises:
        ConfigError: the URL is not one, or carries credentials.
        ModelMismatchError: the vectors there are another embedder's.
        StoreError: the server can't be reached, or refuses.
    """

    advice: ClassVar[str] = (
        "check that the Chroma server is up and reachable, then run the command again; capturing "
        "goes on in the journal meanwhile, and nothing is lost"
    )

    schemas: ClassVar[tuple[int, ...]] = (1, 2)  # other hosts may be of the version before

    def __init__(self, url: str, tenant: str, namespace: str, known: Known) -> None:
        host, port, ssl = server_address(url)
        shown = f"{'https' if ssl else 'http'}://{host}:{port}/{tenant}/{namespace}"
        with _reached(shown):
            super().__init__(_connect(url, tenant, namespace), shown, known)

    @staticmethod
    def forget(url: str, tenant: str, namespace: str, run_ids: Sequence[str]) -> None:
        """Delete these records, whatever embedder made the collection; unknown ones are fine.

        Raises:
            ConfigError, StoreError: as for opening.
        """
        with _anyones(url, tenant, namespace) as client:
            collection = client.get_collection(COLLECTION, embedding_function=None)
            for start in range(0, len(run_ids), PAGE):
                collection.delete(ids=list(run_ids[start : start + PAGE]))

    @staticmethod
    def drop(url: str, tenant: str, namespace: str) -> None:
        """Delete the whole collection; other hosts fill in what is theirs when they drain.

        Raises:
            ConfigError, StoreError: as for opening.
        """
        with _anyones(url, tenant, namespace) as client:
            client.delete_collection(COLLECTION)


@contextmanager
def _anyones(url: str, tenant: str, namespace: str) -> Iterator[Any]:
    """A client for a collection of whatever embedder; that there is none is fine."""
    from chromadb.errors import NotFoundError

    with _reached(url), suppress(NotFoundError):
        client = _connect(url, tenant, namespace)
        try:
            yield client
        finally:
            client.close()


@contextmanager
def _reached(shown: str) -> Iterator[None]:
    """Turn whatever the client raises into one sentence."""
    try:
        yield
    except UNOError:
        raise
    except Exception as error:
        raise StoreError(
            f"The Chroma server {shown!r} can't be used ({brief(error)}): {ServerIndex.advice}."
        ) from error


def server_address(url: str) -> tuple[str, int, bool]:
    """Return host, port and whether TLS is used.

    Raises:
        ConfigError: anything but ``http(s)://host[:port]``.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"The Chroma URL is not one ({error}).") from error
    if parts.username or parts.password:
        raise ConfigError(
            f"The Chroma URL must not carry credentials: put the token into {ENV_TOKEN}."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"logs.chroma is {url!r}: give 'embedded', or a server as http://HOST:PORT."
        )
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"The Chroma URL {url!r} must end after the port.")
    ssl = parts.scheme == "https"
    return parts.hostname, port or (443 if ssl else 8000), ssl


def _connect(url: str, tenant: str, namespace: str) -> Any:
    import chromadb
    from chromadb.config import Settings

    host, port, ssl = server_address(url)
    safe_name(tenant, "chroma tenant")
    # Chroma wants three characters at least.
    database = "uno-" + safe_name(namespace, "namespace")
    given: dict[str, Any] = {"anonymized_telemetry": False}
    if token := os.environ.get(ENV_TOKEN):
        given["chroma_client_auth_provider"] = "chromadb.auth.token_authn.TokenAuthClientProvider"
        given["chroma_client_auth_credentials"] = token
    admin = chromadb.AdminClient(
        Settings(
            chroma_api_impl="chromadb.api.fastapi.FastAPI",
            chroma_server_host=host,
            chroma_server_http_port=port,
            chroma_server_ssl_enabled=ssl,
            **given,
        )
    )
    _ensure(admin.get_tenant, admin.create_tenant, tenant)
    _ensure(admin.get_database, admin.create_database, database, tenant)
    return chromadb.HttpClient(
        host=host, port=port, ssl=ssl, settings=Settings(**given), tenant=tenant, database=database
    )


def _ensure(get: Any, create: Any, *names: str) -> None:
    from chromadb.errors import ChromaError, NotFoundError

    try:
        get(*names)
    except NotFoundError:
        try:
            create(*names)
        except ChromaError as refused:  # of several kinds when another host was quicker
            try:
                get(*names)
            except NotFoundError:
                raise refused from None
