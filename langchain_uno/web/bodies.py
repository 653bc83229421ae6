"""Bodies of requests: read whole, but never more than is allowed, and not for longer."""

from __future__ import annotations

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

BODY_S = 10.0
"""Seconds that a body may take to come in."""


class Refused(Exception):
    """What a request is refused with: a status, a short name, a sentence, and headers."""

    def __init__(self, status: int, error: str, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.error, self.detail = status, error, detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of a request.

    Raises:
        Refused: it is too large (413), too slow (408), or the client hung up (400).
    """
    too_large = Refused(413, "too_large", f"The body may have {most} bytes.", Connection="close")
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > most):
        raise too_large

    async def read() -> bytes:
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
        except ClientDisconnect as error:  # nobody reads the answer
            raise Refused(400, "hung_up", "The client hung up.") from error
        return bytes(body)

    try:
        return await asyncio.wait_for(read(), BODY_S)
    except asyncio.TimeoutError as error:
        slow = f"The body took longer than {BODY_S:g} s."
        raise Refused(408, "too_slow", slow, Connection="close") from error
