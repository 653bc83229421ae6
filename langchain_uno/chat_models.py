"""``UNOChatModel``: a LangChain chat model that answers from what its users taught it.

    from langchain_uno import UNOChatModel
    model = UNOChatModel(home="my-service")
    model.invoke("How do I reset the router?").content

It takes the place of ``ChatOpenAI`` or ``ChatHuggingFace``. Each request goes to the cluster that
its conversation belongs to, by the release that the home's ``traffic.json`` names at that moment.
Without a home, or before the first release, the base model answers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import get_config_list
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field, PrivateAttr, SecretStr, ValidationError, model_validator
from typing_extensions import Self

from langchain_uno.errors import InputError, TemplateError, UNOError, nearest
from langchain_uno.graphs.respond import Mode, RespondContext, RespondInput, build_respond_graph
from langchain_uno.home import ENV_HOME, Home
from langchain_uno.messages import from_langchain
from langchain_uno.releases.traffic import read_traffic
from langchain_uno.serving import structured
from langchain_uno.serving.answers import as_chunk, as_result
from langchain_uno.serving.router import RouteChoice
from langchain_uno.serving.shared import Served, serve
from langchain_uno.serving.tracing import child_config, sticky

_AT_ONCE = 32
"""What the local engine takes together by default."""


class UNOChatModel(BaseChatModel):
    """A chat model with routed LoRA experts and critics behind it.

    The ``response_metadata`` of every answer has ``model_name``, ``release``, ``cluster``,
    ``distance``, ``route`` (``expert``, ``critic`` or ``base``; ``memory`` in releases of version
    0.1.0), ``adapter``, ``finish_reason``, and ``canary`` while one runs. The ``usage_metadata`` is
    summed over draft, critique and revision.
    """

    home: str | os.PathLike[str] | None = None
    """The service's home; by default ``LANGCHAIN_UNO_HOME``. Without a home the base answers."""
    model: str | None = None
    """A folder, a hub name, or an OpenAI-compatible server's URL; None: the bundled model."""
    mode: Mode = "uno"
    """``"uno"``; ``"single"``: no reflective path; ``"base"``: the base model alone."""
    namespace: str = "default"
    """The tenant, whose releases alone are served."""
    temperature: float = Field(default=0.0, ge=0.0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int | None = Field(default=None, ge=1)
    """The most tokens of an answer; None: what the release's answers were verified with (2,048
    before there is a release)."""
    seed: int | None = None
    """Makes sampled answers repeatable."""
    stop: list[str] | None = None
    """Strings at which an answer ends; they are cut off."""
    timeout: float | None = Field(default=None, gt=0.0)
    """Seconds that an answer may take; beyond, ``EngineTimeoutError`` (a ``TimeoutError``)."""
    embedder: Any = Field(default=None, exclude=True)
    """LangChain ``Embeddings``, a HuggingFace name, or None for the base model's token embeddings.
    It must be what the home's releases were made with."""
    model_settings: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    """Further arguments of ``langchain_uno.models.loading.load_engine`` (device, dtype, ...). A
    server's key is among them, and LangChain shows every tracer a model's ``repr``."""
    engine: Any = Field(default=None, exclude=True)
    """A running engine to use instead of loading ``model``."""

    _served: Served | None = PrivateAttr(default=None)
    _root: Path | None = PrivateAttr(default=None)
    """The folder that ``home`` named when the model was made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the fields above, and what every LangChain chat model takes.

        Raises:
            InputError: a keyword that none of them has, or a home that is no path.
            pydantic.ValidationError: a value of the wrong type or range (a ``ValueError``).
        """
        known = {*type(self).model_fields, *_LEFT_ALONE}
        for name in kwargs.keys() - known:
            near, every = nearest(name, known), ", ".join(sorted(known))
            hint = f"did you mean {near!r}?" if near else f"it takes {every}."
            raise InputError(f"UNOChatModel takes no {name!r}: {hint}")
        key = kwargs.pop("api_key", None)
        if key is not None and str(kwargs.get("model")).startswith(("http://", "https://")):
            secret = key.get_secret_value() if isinstance(key, SecretStr) else key
            kwargs["model_settings"] = {"api_key": secret, **kwargs.get("model_settings", {})}
        try:
            super().__init__(*args, **kwargs)
        except ValidationError as error:
            cause = error.errors()[0].get("ctx", {}).get("error")
            if isinstance(cause, UNOError):  # ours, raised in a validator
                raise cause from None
            raise

    @model_validator(mode="after")
    def _settle_paths(self) -> Self:
        """Make paths absolute when the model is made: the current folder may change later."""
        if self.home is None:
            self.home = os.environ.get(ENV_HOME) or None
        self._root = None if self.home is None else Home.locate(self.home).root
        if self._root is not None and not self._root.is_dir():
            _tell_missing(str(self._root))
        self.model = _settled(self.model)
        self.embedder = _settled(self.embedder)
        if "adapter_dir" in self.model_settings:
            folder = os.path.abspath(self.model_settings["adapter_dir"])
            self.model_settings = {**self.model_settings, "adapter_dir": folder}
        return self

    def __getstate__(self) -> dict[Any, Any]:
        """Return what is pickled: the settings, not the running model behind them.

        Raises:
            InputError: the model was made around an engine.
        """
        if self.engine is not None:
            raise InputError(
                "A UNOChatModel around a running engine can't be pickled: name the model instead "
                "(model=...), so that another process can load it."
            )
        state = super().__getstate__()
        private = {**(state.get("__pydantic_private__") or {}), "_served": None}
        return {**state, "__pydantic_private__": private}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that shares what can't be copied: engine, embedder, limiter and cache."""
        memo = {} if memo is None else memo
        for shared in (self.engine, self.embedder, self.rate_limiter, self.cache, self._served):
            memo[id(shared)] = shared
        return super().__deepcopy__(memo)

    @classmethod
    def from_langchain(cls, other: Any, **kwargs: Any) -> UNOChatModel:
        """Take model and tokenizer out of a ``ChatHuggingFace`` or ``HuggingFacePipeline``.

        Do not run the other object beside the new model: they share the weights.

        Args:
            other: holds a local transformers model and its tokenizer.
            kwargs: fields of the chat model.

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
            "home": None if self._root is None else str(self._root),
            **{name: getattr(self, name) for name in ("namespace", "stop", *_CHOICES)},
        }

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Return the key of LangChain's cache, which tells releases and sides of a canary apart."""
        who = kwargs.pop(_STICKY, "")
        return f"{super()._get_llm_string(stop, **kwargs)}---{self._released(who)}"

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
        can = ("text_inputs", "text_outputs", "tool_calling", "tool_choice", "structured_output")
        no = ("image_inputs", "audio_inputs", "video_inputs", "reasoning_output")
        return {**dict.fromkeys(can, True), **dict.fromkeys(no, False)}

    # -- counting --------------------------------------------------------------------------------

    def get_token_ids(self, text: str) -> list[int]:
        """Return a text's tokens by the model's own tokenizer.

        Raises:
            EngineError: a server's model, whose tokenizer was not named.
        """
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        ids: list[int] = cast(Any, self.served.engine).encode(text)
        return ids

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return how many tokens a conversation has as the model's prompt.

        Where the model's chat template refuses the messages (a part of a conversation that begins
        with an answer, say), the texts are counted, with four tokens more for each message.

        Args:
            messages: the conversation; none at all is 0.
            tools: whose descriptions go into the prompt.

        Raises:
            InputError: a message holds something other than text.
            EngineError: a server's model, whose tokenizer was not named.
        """
        if not messages:
            return 0
        records = from_langchain(messages)
        if self.custom_get_token_ids is None:
            with suppress(TemplateError):
                engine: Any = self.served.engine
                return len(engine.prompt(records, structured.offer(tools or (), None)[0]))
        return sum(len(self.get_token_ids(m.content)) + _MESSAGE_TOKENS for m in records)

    # -- what is served --------------------------------------------------------------------------

    @property
    def served(self) -> Served:
        """Engine, releases and graph behind this model; loaded on first use, one a process."""
        if self._served is None or not self._served.alive:
            self._served = serve(
                build_respond_graph,
                model=self.model,
                home=self._root,
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

        Args:
            messages: the conversation, in any form that ``invoke`` takes.

        Returns:
            Cluster (None: unseen), distance and the ``top_k`` nearest; None when there is nothing
            to choose from (no release, or no text).
        """
        serving = self.served.serving
        with serving.lease() as snapshot:
            return serving.route(
                snapshot, from_langchain(self._convert_input(messages).to_messages())
            )

    # -- who asks --------------------------------------------------------------------------------

    # LangChain gives a stream no run manager to learn from who asks: its config is read instead.

    def _generate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        return super()._generate_with_cache(*args, **_asked_by(kwargs))

    async def _agenerate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        return await super()._agenerate_with_cache(*args, **_asked_by(kwargs))

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """Stream an answer; see LangChain's ``BaseChatModel.stream``."""
        kwargs.setdefault(_STICKY, self._streamed_for(config))
        return super().stream(input, config, **kwargs)

    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream an answer; see LangChain's ``BaseChatModel.astream``."""
        kwargs.setdefault(_STICKY, self._streamed_for(config))
        return super().astream(input, config, **kwargs)

    def _streamed_for(self, config: RunnableConfig | None) -> str:
        found = ensure_config(config)
        metadata = {**found.get("metadata", {}), **(self.metadata or {})}
        return sticky(metadata, found.get("configurable"))

    # -- answering -------------------------------------------------------------------------------

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answer many requests, 32 at a time unless ``max_concurrency`` says otherwise.

        32 is what shares a forward pass; LangChain's default depends on the number of cores.
        """
        configs: Any = [
            {**one, "max_concurrency": one.get("max_concurrency") or _AT_ONCE}
            for one in get_config_list(config, len(inputs))
        ]
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        state = self.served.graph.invoke(**self._asked(messages, stop, run_manager, kwargs))
        return as_result(state, self.model_name)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        graph = (await self._aserved()).graph
        state = await graph.ainvoke(**self._asked(messages, stop, run_manager, kwargs))
        return as_result(state, self.model_name)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        asked = self._asked(messages, stop, run_manager, kwargs, stream=True)
        for kind, event in self.served.graph.stream(**asked, stream_mode=_EVENTS):
            if chunk := as_chunk(kind, event, self.model_name):
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        asked = self._asked(messages, stop, run_manager, kwargs, stream=True)
        graph = (await self._aserved()).graph
        async for kind, event in graph.astream(**asked, stream_mode=_EVENTS):
            if chunk := as_chunk(kind, event, self.model_name):
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        parallel_tool_calls: bool = True,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model, through its own chat template.

        On the local engine the arguments of a call are certain to be JSON of the tool's schema.

        Args:
            tools: anything that LangChain can turn into an OpenAI tool.
            tool_choice: ``"auto"`` (default); ``"none"``; ``"any"``, ``"required"`` or True: at
                least one call; a tool's name: one call of that tool.
            parallel_tool_calls: whether ``"any"`` may make several calls of one tool.
            kwargs: bound to the model as they are.

        Raises:
            InputError: ``tool_choice`` names none of the tools, or one of them is no function.
        """
        offered, choice = structured.offer(tools, tool_choice, parallel_tool_calls)
        return self.bind(tools=offered, tool_choice=choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: structured.Method = "json_schema",
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
            include_raw: return ``{"raw", "parsed", "parsing_error"}`` and raise no parsing error.
            strict: accepted as by other providers; the form is always enforced.
            kwargs: bound to the model as they are.

        Raises:
            InputError: an unknown method, or no schema where one is needed.
        """
        if method not in get_args(structured.Method) or (schema is None and method != "json_mode"):
            raise InputError(
                f"with_structured_output(method={method!r}): the methods are 'json_schema' and "
                "'function_calling', which need a schema, and 'json_mode'."
            )
        told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        form: Any = schema
        if method == "function_calling":
            model = self.bind_tools(
                [form],
                tool_choice="any",
                parallel_tool_calls=False,
                ls_structured_output_format=told,
                **kwargs,
            )
        else:
            wanted = structured.ANY_JSON if method == "json_mode" else structured.schema_of(form)
            model = self.bind(json_schema=wanted, ls_structured_output_format=told, **kwargs)
        parser = structured.parser_of(schema, method)
        return structured.with_raw(model, parser) if include_raw else model | parser

    # -- inside ----------------------------------------------------------------------------------

    async def _aserved(self) -> Served:
        """Like :attr:`served`; loading a model must not block the event loop."""
        if self._served is None or not self._served.alive:
            import asyncio

            return await asyncio.to_thread(lambda: self.served)
        return self._served

    def _released(self, who: str) -> tuple[Any, ...]:
        """What ``traffic.json`` says, and which release answers: without loading anything."""
        if self._root is None:
            return "", None
        try:
            traffic = read_traffic(Home.locate(self._root, self.namespace))
        except UNOError:
            traffic = None
        share, served = traffic.chosen(who) if traffic else None, self._served
        alive = served is not None and served.alive
        return (
            traffic and traffic.model_dump_json(),
            share and share.release,
            served.serving.release_for(who) if served is not None and alive else None,
        )

    def _asked(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        kwargs: dict[str, Any],
        *,
        stream: bool = False,
    ) -> dict[str, Any]:
        """What the graph is asked: messages, config and context."""
        for name in kwargs.keys() - _SAID_PER_CALL - set(type(self).model_fields):
            # Keywords of LangChain and of other providers are ignored.
            if near := nearest(name, _SAID_PER_CALL, cutoff=0.8):
                raise InputError(f"There is no setting {name!r}: did you mean {near!r}?")
        tools, choice = structured.offer(kwargs.get("tools") or (), kwargs.get("tool_choice"))
        chosen = {
            name: structured.checked(type(self), name, v)
            for name in _CHOICES
            if (v := kwargs.get(name)) is not None
        }
        context = RespondContext(
            **{name: chosen.get(name, getattr(self, name)) for name in _CHOICES},
            stop=(stop,) if isinstance(stop, str) else tuple(stop or self.stop or ()),
            tools=tuple(tools),
            tool_choice=choice,
            json_schema=structured.json_schema_of(*map(kwargs.get, _FORMS)),
            stream=stream,
            sticky=kwargs.get(_STICKY, ""),
        )
        given: RespondInput = {"messages": list(from_langchain(messages))}
        return {"input": given, "config": child_config(run_manager), "context": context}


_EVENTS = ["custom", "values"]
"""Stream modes of the graph that a stream of answers is made of."""
_STICKY = "uno_sticky"
"""The keyword by which a call learns who asks."""
_MESSAGE_TOKENS = 4
"""About how many tokens a chat template writes around a message."""
_LEFT_ALONE = ("api_key", "max_retries", "streaming")
"""LangChain's standard parameters that mean nothing to a model in this process."""
_CHOICES = ("mode", "temperature", "top_p", "max_tokens", "seed", "timeout")
"""Settings of the model that a call may replace."""
_FORMS = ("json_schema", "response_format")
_SAID_PER_CALL = {*_CHOICES, *_FORMS, "stop", "tools", "tool_choice", "parallel_tool_calls"}


@cache
def _tell_missing(home: str) -> None:
    """Warn once in a process that a home is missing: a service may start before its first log."""
    told = (
        "There is no home at %r: the base model answers. If the path is right, capture feedback "
        "there (UNOFeedbackHandler(home=...)) and make a release (langchain-uno train --home DIR)."
    )
    logging.getLogger(__name__).warning(told, home)


def _settled(name: Any) -> Any:
    """The absolute path where ``name`` is that of a folder; else ``name`` as it is."""
    if isinstance(name, str | os.PathLike):
        folder = Path(name).expanduser()
        return str(folder.absolute()) if folder.is_dir() else name
    return name


def _asked_by(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return a call's keywords, with who asks."""
    run = kwargs.get("run_manager")
    return {_STICKY: sticky(run.metadata if run else {}), **kwargs}
