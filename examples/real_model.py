"""Serve and capture with a real model: Qwen3-8B by name.

python examples/real_model.py                          Qwen/Qwen3-8B; wants a GPU and the hub
python examples/real_model.py --model Qwen/Qwen3-0.6B  smaller
python examples/real_model.py --tiny                   a random Qwen3, made on the spot: the
                                                       same code in seconds, its words are noise
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from langchain_uno import UNOChatModel, UNOFeedbackHandler

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--home", default=".demo/real", help="where logs and releases are kept")
parser.add_argument("--model", default="Qwen/Qwen3-8B", help="a folder, a hub name or a URL")
parser.add_argument("--tiny", action="store_true", help="a tiny random Qwen3 instead")
args = parser.parse_args()

if args.tiny:
    from langchain_uno.testing import make_tiny_model

    args.model = str(make_tiny_model(Path(args.home) / "tiny-qwen3"))

chat = UNOChatModel(home=args.home, model=args.model, max_tokens=24 if args.tiny else 512)
handler = UNOFeedbackHandler(home=args.home)

QUESTIONS = {
    "ada": ("What is a LoRA adapter?", "Explain it with a picture from daily life, please."),
    "bo": ("什么是偏好优化？", "请用三句话说明。"),
}


async def ask(user: str, question: str) -> None:
    """Stream one answer, then give the user's feedback on it."""
    answer = None
    config = {"callbacks": [handler], "metadata": {"user_id": user}}
    async for chunk in chat.astream(question, config=config):  # type: ignore[arg-type]
        answer = chunk if answer is None else answer + chunk
    assert answer is not None
    print(f"{user}: {question}\n  {answer.text!r}")
    print(f"  route {answer.response_metadata['route']}, usage {answer.usage_metadata}")
    handler.feedback(answer.id, comment=QUESTIONS[user][1], user_id=user)


async def main() -> None:
    """Both users at once; the engine lets them share forward passes."""
    await asyncio.gather(*(ask(user, question) for user, (question, _) in QUESTIONS.items()))


asyncio.run(main())
handler.close()
print(f"\nrecorded: {handler.stats()}")
print("With some hundred logs, learn from them:")
print(f"  langchain-uno train --home {args.home} --model {args.model} \\")
print("    --embeddings Qwen/Qwen3-Embedding-0.6B --reranker Qwen/Qwen3-Reranker-0.6B")
print("and give UNOChatModel the same embedder: embedder='Qwen/Qwen3-Embedding-0.6B'")
