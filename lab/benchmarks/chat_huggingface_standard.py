"""LangChain's standard integration tests over ChatHuggingFace, to compare (bench_standard.py)."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_uno.models.loading import bundled_path, load_weights


class TestChatHuggingFace(ChatModelIntegrationTests):
    @pytest.fixture
    def model(self, request: Any) -> BaseChatModel:
        from transformers import pipeline

        weights, tokenizer = load_weights(bundled_path())
        made: Any = pipeline(
            "text-generation", model=weights, tokenizer=tokenizer, max_new_tokens=200
        )
        return ChatHuggingFace(llm=HuggingFacePipeline(pipeline=made))

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatHuggingFace
