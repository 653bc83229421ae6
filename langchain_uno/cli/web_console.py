"""``langchain-uno console``: the pages that people look at and click."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from typing import Annotated

import typer

from langchain_uno.cli.console import EmbeddingsOption, ModelOption, at_home, say
from langchain_uno.errors import ConfigError
from langchain_uno.home import Home


@at_home("The console has stopped.")
def console(
    place: Home,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8642,
    root_path: Annotated[
        str, typer.Option(help="What a proxy takes off the front of paths: /console, say.")
    ] = "",
    model: ModelOption = None,
    embeddings: EmbeddingsOption = None,
    with_model: Annotated[
        bool, typer.Option("--model-loads/--no-model", help="Whether Try it may load a model.")
    ] = True,
) -> None:
    """Serve the console: look at a home, try it, approve releases, roll back, forget people.

    It prints an address with a token to click, which is enough on this machine:

        langchain-uno console --home ./home

    For other people, name who may do what, and listen behind TLS:

        export LANGCHAIN_UNO_CONSOLE_TOKENS="ann:release:TOKEN,bob:review:TOKEN"

        langchain-uno console --home ./home --host 0.0.0.0

    Roles: "read" sees every page; "review" also decides in the review and tries the model;
    "release" also promotes, rolls back and forgets. The history keeps every action with its name;
    standard error tells who enters and leaves.

    Exit codes: 2 bad argument or token, the address can't be used, or a package is missing, 3 no
    such home, 7 the journal can't be read, 130 stopped by Ctrl-C.
    """
    from langchain_uno.web.console import access, console_app

    operators = access.read_tokens(os.environ.get(access.ENV_TOKENS, ""))
    named = bool(operators)
    if not named:
        if not _is_loopback(host):
            raise ConfigError(
                f"Others can reach {host}: say who may do what, with "
                f"{access.ENV_TOKENS}='name:role:token,...'."
            )
        operators = [access.local_operator()]
    app = console_app(
        place.root,
        place.namespace,
        tokens=operators,
        model=model,
        embedder=embeddings,
        with_model=with_model,
    )
    import uvicorn

    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger(access.__name__).setLevel(logging.INFO)
    listening = _listen(host, port)
    # Proxies keep idle connections for a minute; what closes first must not be the console.
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        root_path=root_path.rstrip("/"),
    )
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/"
    if named:
        say(f"The console is at {url}; it asks for a token.")
    else:
        say(f"The console is at {url}enter?token={operators[0].token}")
    uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        # Who clicks at once waits until the pages are there.
        return socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} can't be listened on ({error.strerror or error}): choose another with "
            "--host or --port."
        ) from error
