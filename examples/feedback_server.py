"""A page with a question box and two thumbs; the thumbs come back as feedback, without a login.

python examples/feedback_server.py --home ~/uno-home --port 8000
"""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.web.feedback import ENV_SECRET, feedback_router

PAGE = """<!doctype html><title>Ask</title>
<form id=ask><input id=text size=80 autofocus><button>Ask</button></form>
<p id=answer></p>
<p id=thumbs hidden><button value=1>\U0001f44d</button><button value=0>\U0001f44e</button></p>
<script>
let token;
ask.onsubmit = async event => {
  event.preventDefault();
  const reply = await fetch("/ask", {method: "POST", headers: {"content-type": "application/json"},
                                     body: JSON.stringify({text: text.value})});
  const told = await reply.json();
  token = told.token; answer.textContent = told.answer; thumbs.hidden = false;
};
thumbs.onclick = event => fetch("/feedback", {method: "POST",
  headers: {"content-type": "application/json", Authorization: `Bearer ${token}`},
  body: JSON.stringify({key: "thumb", score: Number(event.target.value)})});
</script>"""


class Ask(BaseModel):
    """What the page sends."""

    text: str


def make_app(home: str) -> FastAPI:
    """Return the app: /, /ask and /feedback; the model is what the home has learnt so far."""
    model, handler = UNOChatModel(home=home), UNOFeedbackHandler(home=home)
    thumbs = feedback_router(handler)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        handler.close()

    app = FastAPI(lifespan=life)
    app.include_router(thumbs)

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @app.post("/ask")
    def ask(asked: Ask) -> dict[str, str]:
        answer = model.invoke(asked.text, config={"callbacks": [handler]})
        return {"answer": answer.text, "token": thumbs.tokens.sign(answer.id, keys=["thumb"])}

    return app


def main() -> None:
    """Serve, or check that it works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", required=True)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--check", action="store_true", help="ask once, press a thumb, and end")
    given = parser.parse_args()
    os.environ.setdefault(ENV_SECRET, secrets.token_urlsafe(32))  # in a service: set it yourself
    app = make_app(given.home)
    if not given.check:
        uvicorn.run(app, host="127.0.0.1", port=given.port)
        return
    with TestClient(app) as browser:
        told = browser.post("/ask", json={"text": "Which facts help a customer?"}).json()
        headers = {"Authorization": f"Bearer {told['token']}"}
        press = {"key": "thumb", "score": 0}
        print(browser.post("/feedback", json=press, headers=headers).json()["status"])


if __name__ == "__main__":
    main()
