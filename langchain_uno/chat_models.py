"""``UNOChatModel``: a LangChain chat model that answers from what its users taught it.

    from langchain_uno import UNOChatModel
    model = UNOChatModel(home="my-service")
    model.invoke("How do I reset the router?").content

It stands where ``ChatOpenAI`` or ``ChatHuggingFace`` stood. Each request goes to the cluster that
its conversation belongs to, by the release that the home's ``traffic.json`` names at that moment;
without a home, or before the first release, the base model answers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from typing_extensions import Self

from langchain_uno.errors import InputError
from langchain_uno.graphs.respond import (
    Mode,
    RespondContext,
    RespondInput,
    build_respond_graph,
)
from langchain_uno.home import ENV_HOME
from langchain_uno.serving.answers import as_last_chunk, as_result, text_chunk
from langchain_uno.serving.messages import from_langchain
from langchain_uno.serving.router import RouteChoice
from langchain_uno.serving.shared import Served, serve
from langchain_uno.serving.structured import (
    ANY_JSON,
    Method,
    json_schema_of,
    offer,
    parser_of,
    with_raw,
)
from langchain_uno.serving.tracing import child_config, tell_outer_graph

__all__ = ["UNOChatModel"]


class UNOChatModel(BaseChatModel):
    """A chat model with routed LoRA experts and critics behind it.

    ``response_metadata`` of every answer: ``model_name``, ``release``, ``cluster``, ``distance``,
    ``route`` (``expert``, ``memory``, ``critic`` or ``base``), ``adapter``, ``finish_reason``. Its
    ``usage_metadata`` is summed over draft, critique and revision.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    home: str | os.PathLike[str] | None = None
    """The service's home; by default what ``LANGCHAIN_UNO_HOME`` names, else none: base answers."""
    model: str | None = None
    """A folder, a hub name, or an OpenAI-compatible server's URL; None: the bundled model."""
    mode: Mode = "uno"
    """``"uno"``; ``"single"``: no reflective path; ``"base"``: the base model alone."""
    namespace: str = "default"
    """The tenant, whose releases alone are served."""
    temperature: float = Field(default=0.0, ge=0.0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(default=1024, ge=1)
    seed: int | None = None
    """Makes sampled answers repeatable."""
    stop: list[str] | None = None
    """Strings at which an answer ends (they are cut off)."""
    timeout: float | None = Field(default=None, gt=0.0)
    """Seconds that an answer may take (``EngineTimeoutError``, a ``TimeoutError``, beyond them)."""
    embedder: Any = Field(default=None, exclude=True)
    """LangChain ``Embeddings``, a HuggingFace name, or None for the base model's token embeddings;
    must be what the home's releases were made with."""
    model_settings: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Further arguments of ``langchain_uno.models.loading.load_engine`` (device, dtype, ...)."""
    engine: Any = Field(default=None, exclude=True)
    """A running engine to use instead of loading ``model``."""

    _served: Served | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _home_from_environment(self) -> Self:
        if self.home is None and os.environ.get(ENV_HOME):
            self.home = os.environ[ENV_HOME]
        return self

    @classmethod
    def from_langchain(cls, other: Any, **kwargs: Any) -> UNOChatModel:
        """Take model and tokenizer out of a ``ChatHuggingFace`` or ``HuggingFacePipeline``.

        The object is not wrapped (it has no async, no tools, no usage), only its parts are used; do
        not run it beside the new model.

        Raises:
            InputError: ``other`` holds no local transformers model.
        """
        from langchain_uno.models.loading import engine_from_langchain

        engine = engine_from_langchain(other, **kwargs.pop("model_settings", {}))
        return cls(engine=engine, model=engine.model_name, **kwargs)

    # -- what LangChain asks ---------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "langchain-uno"

    @property
    def model_name(self) -> str:
        """The base model's name, ``"bundled"`` when none was given."""
        return self.model or "bundled"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model_name": self.model_name,
            "home": None if self.home is None else os.fspath(self.home),
            "namespace": self.namespace,
            "mode": self.mode,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "stop": self.stop,
            "timeout": self.timeout,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider="langchain-uno",
            ls_model_name=str(kwargs.get("model") or self.model_name),
            ls_model_type="chat",
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_tokens", self.max_tokens),
        )
        if found := stop or self.stop:
            params["ls_stop"] = list(found)
        return params

    def _resolve_model_profile(self) -> Any:
        return {
            "text_inputs": True,
            "text_outputs": True,
            "image_inputs": False,
            "audio_inputs": False,
            "video_inputs": False,
            "tool_calling": True,
            "tool_choice": True,
            "structured_output": True,
            "reasoning_output": False,
        }

    @property
    def served(self) -> Served:
        """Engine, releases and graph behind this model; loaded on first use, one a process."""
        if self._served is None or getattr(self._served.engine, "closed", False):
            self._served = serve(
                build_respond_graph,
                model=self.model,
                home=self.home,
                namespace=self.namespace,
                embedder=self.embedder,
                engine=self.engine,
                settings=self.model_settings,
            )
        return self._served

    def warm(self) -> Self:
        """Load the model and the current release now instead of at the first request."""
        self.served.serving.current()
        return self

    def explain(self, messages: LanguageModelInput) -> RouteChoice | None:
        """Say where a conversation would go, and how near the nearest clusters are.

        Returns:
            Cluster (None: unseen), distance and the ``top_k`` nearest; None when there is nothing
            to choose from (no release, or no text).
        """
        serving = self.served.serving
        with serving.lease() as snapshot:
            return serving.route(
                snapshot, from_langchain(self._convert_input(messages).to_messages())
            )

    # -- answering -------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        context = self._context(stop, stream=False, **kwargs)
        state = self.served.graph.invoke(
            _input(messages), child_config(run_manager), context=context
        )
        return as_result(state, self.model_name)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        context = self._context(stop, stream=False, **kwargs)
        graph = (await self._aserved()).graph
        state = await graph.ainvoke(_input(messages), child_config(run_manager), context=context)
        return as_result(state, self.model_name)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        events = self.served.graph.stream(
            _input(messages),
            child_config(run_manager),
            context=self._context(stop, stream=True, **kwargs),
            stream_mode=["custom", "values"],
        )
        state: Any = {}
        for kind, event in events:
            if kind == "values":
                state = event
            elif event.get("type") == "progress":
                tell_outer_graph(event)
            elif event.get("type") == "token":
                chunk = text_chunk(event["text"])
                if run_manager is not None:
                    run_manager.on_llm_new_token(event["text"], chunk=chunk)
                yield chunk
        last = as_last_chunk(state, self.model_name)
        if run_manager is not None:
            run_manager.on_llm_new_token("", chunk=last)
        yield last

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        events = (await self._aserved()).graph.astream(
            _input(messages),
            child_config(run_manager),
            context=self._context(stop, stream=True, **kwargs),
            stream_mode=["custom", "values"],
        )
        state: Any = {}
        async for kind, event in events:
            if kind == "values":
                state = event
            elif event.get("type") == "progress":
                tell_outer_graph(event)
            elif event.get("type") == "token":
                chunk = text_chunk(event["text"])
                if run_manager is not None:
                    await run_manager.on_llm_new_token(event["text"], chunk=chunk)
                yield chunk
        last = as_last_chunk(state, self.model_name)
        if run_manager is not None:
            await run_manager.on_llm_new_token("", chunk=last)
        yield last

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        parallel_tool_calls: bool = True,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model, through its own chat template.

        The form of a call is certain: its arguments are JSON of the tool's schema.

        Args:
            tools: anything that LangChain can turn into an OpenAI tool.
            tool_choice: ``"auto"`` (default); ``"none"``; ``"any"``, ``"required"`` or True: at
                least one call; a tool's name: one call of that tool.
            parallel_tool_calls: whether ``"any"`` may make several calls of one tool.
            kwargs: bound to the model as they are.

        Raises:
            InputError: ``tool_choice`` names none of the tools.
        """
        offered, choice = offer(tools, tool_choice, parallel_tool_calls)
        return self.bind(tools=offered, tool_choice=choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return a chain that answers in the form of ``schema``.

        Args:
            schema: a pydantic class, a TypedDict class, a JSON schema or an OpenAI tool; None with
                ``json_mode``: any JSON object.
            method: ``"json_schema"``: the answer is JSON of the schema; ``"function_calling"``: a
                call of a tool of that form; ``"json_mode"``: any JSON object, read by the schema.
            include_raw: return ``{"raw", "parsed", "parsing_error"}``, never raise for the form.
            strict: taken for other providers' sake; the form is always enforced here.
            kwargs: bound to the model as they are.

        Raises:
            InputError: an unknown method, or no schema where one is needed.
        """
        told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        if method == "function_calling" and schema is not None:
            model = self.bind_tools(
                [schema],
                tool_choice="any",
                parallel_tool_calls=False,
                ls_structured_output_format=told,
                **kwargs,
            )
        elif method == "json_schema" and schema is not None:
            wanted = convert_to_json_schema(schema)
            model = self.bind(json_schema=wanted, ls_structured_output_format=told, **kwargs)
        elif method == "json_mode":
            model = self.bind(json_schema=ANY_JSON, ls_structured_output_format=told, **kwargs)
        else:
            raise InputError(
                f"with_structured_output(method={method!r}): the methods are 'json_schema' and "
                "'function_calling', which need a schema, and 'json_mode'."
            )
        parser = parser_of(schema, method)
        return with_raw(model, parser) if include_raw else model | parser

    # -- inside ----------------------------------------------------------------------------------

    async def _aserved(self) -> Served:
        """Like :attr:`served`; loading a model must not block the event loop."""
        if self._served is None:
            import asyncio

            return await asyncio.to_thread(lambda: self.served)
        return self._served

    def _context(self, stop: list[str] | None, *, stream: bool, **kwargs: Any) -> RespondContext:
        def pick(name: str) -> Any:
            value = kwargs.get(name)
            return getattr(self, name) if value is None else value

        tools, choice = offer(kwargs.get("tools") or (), kwargs.get("tool_choice"))
        return RespondContext(
            mode=pick("mode"),
            temperature=pick("temperature"),
            top_p=pick("top_p"),
            max_tokens=pick("max_tokens"),
            seed=pick("seed"),
            stop=tuple(stop or self.stop or ()),
            timeout=pick("timeout"),
            tools=tuple(tools),
            tool_choice=choice,
            json_schema=json_schema_of(kwargs.get("json_schema"), kwargs.get("response_format")),
            stream=stream,
        )


def _input(messages: list[BaseMessage]) -> RespondInput:
    return {"messages": list(from_langchain(messages))}
