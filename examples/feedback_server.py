"""A page with a question box, thumbs, a comment and an edit; all comes back as feedback, no login.

python examples/feedback_server.py --home ~/uno-home --port 8000

The page is `feedback_page/`: plain HTML, CSS and JavaScript. A signed cookie makes each browser one
voice. In a service set LANGCHAIN_UNO_FEEDBACK_SECRET, serve over HTTPS, and pass the model that you
serve to `make_app`.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from fastapi.testclient import TestClient
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, Field

from langchain_uno import UNOChatModel, UNOFeedbackHandler
from langchain_uno.web.feedback import ENV_SECRET, feedback_router

PAGE = Path(__file__).parent / "feedback_page"
KINDS = ["thumb", "comment", "correction"]
HEADERS = {
    # Nothing from elsewhere, nothing inline.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Ask(BaseModel):
    """What the page sends."""

    text: str = Field(min_length=1, max_length=4000)


def make_app(home: str, model: BaseChatModel | None = None, ttl_s: float = 3 * 3600) -> FastAPI:
    """Return the app: the page, /ask and /feedback.

    Args:
        home: where answers and feedback are kept.
        model: who answers; None: what the home has learnt so far.
        ttl_s: seconds for which an answer can be rated.
    """
    model = model or UNOChatModel(home=home)
    handler = UNOFeedbackHandler(home=home)
    feedback = feedback_router(handler)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        handler.close()

    app = FastAPI(lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(feedback)

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        if request.method == "GET" and request.url.path == "/":
            feedback.tokens.visitor(request, response)  # before the first question
        return response

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: Exception) -> Response:
        # What was sent is not repeated: it may be no text that can be.
        return JSONResponse({"error": "send a text of 1 to 4000 characters"}, 422)

    @app.post("/ask")
    def ask(asked: Ask, request: Request) -> StreamingResponse:
        def lines() -> Iterator[str]:
            config: RunnableConfig = {"callbacks": [handler], "metadata": {"user_id": visitor}}
            run_id = None
            for chunk in model.stream(asked.text, config=config):
                run_id = chunk.id or run_id
                yield json.dumps({"text": chunk.text}) + "\n"
            token = feedback.tokens.sign(run_id, user_id=visitor, ttl_s=ttl_s, keys=KINDS)
            yield json.dumps({"token": token}) + "\n"

        answer = StreamingResponse(lines(), media_type="application/x-ndjson")
        visitor = feedback.tokens.visitor(request, answer)
        return answer

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def main() -> None:
    """Serve, or check that it works."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", required=True)
    parser.add_argument("--host", default="127.0.0.1", help="in a container: 0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--check", action="store_true", help="ask once, press a thumb, and end")
    given = parser.parse_args()
    os.environ.setdefault(ENV_SECRET, secrets.token_urlsafe(32))  # in a service: set it yourself
    app = make_app(given.home)
    if not given.check:
        uvicorn.run(app, host=given.host, port=given.port)
        return
    with TestClient(app) as browser:
        reply = browser.post("/ask", json={"text": "Which facts help a customer?"})
        token = json.loads(reply.text.splitlines()[-1])["token"]
        press = {"key": "thumb", "score": 0}
        headers = {"Authorization": f"Bearer {token}"}
        print(browser.post("/feedback", json=press, headers=headers).json()["status"])


if __name__ == "__main__":
    main()
