"""A small home, operators, and a client that is let in."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from fastapi.testclient import TestClient

TOKENS = {role: f"{role}-" * 4 for role in ("read", "review", "release")}
OPERATORS = ",".join(f"{role}er:{role}:{token}" for role, token in TOKENS.items())

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)' x='",
    '" autofocus onfocus="alert(1)',
    "</textarea><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</option></select><img src=http://198.51.100.1/x>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<a href=javascript:alert(1)>click</a>",
    "javascript:alert(1)",
    "<form action=http://198.51.100.1/><button>x",
    "<base href=http://198.51.100.1/>",
    "<meta http-equiv=refresh content='0;url=http://198.51.100.1/'>",
    "<div hx-get=http://198.51.100.1/ hx-trigger=load>x</div>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "admin\u202egnp.exe",
    "a\u2066\u0000\u001b[31m\U000e0041b",
]
"""Twenty texts that would be more than text where they are not escaped."""


def enter(app: Any, role: str = "release") -> TestClient:
    """Return a client with a session of this role."""
    client = TestClient(app, base_url="http://console.test", follow_redirects=False)
    assert client.get("/enter", params={"token": TOKENS[role]}).status_code == 303
    return client


def csrf(client: TestClient, path: str = "/") -> str:
    """Return what the forms of this session carry."""
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', client.get(path).text)
    assert found
    return found[1]


def post(client: TestClient, path: str, **fields: str) -> Any:
    """Send a form as a page of the console would."""
    return client.post(path, data={"csrf": csrf(client), **fields})


def words(html: str) -> str:
    """Return a page's text as a reader sees it, on one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def forgets(client: TestClient, kind: str, name: str, typed: str) -> Any:
    """Ask to forget, type something, and press the button."""
    page = client.get("/forget", params={"kind": kind, "id": name}).text
    signed = re.search(r'name="id" value="([^"]*)"', page)
    return post(client, "/forget", kind=kind, id=signed[1] if signed else "", typed=typed)
