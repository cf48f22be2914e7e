"""Anthropic's messages, from Anthropic or from a server that speaks them (the extra)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox_sdk.experiments.models.anthropic_answer import parse_message
from sandbox_sdk.experiments.models.anthropic_request import (
    messages_of,
    output_config,
    tool_choice,
    tools_of,
)
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.models.dialect import NO_KEY, Server

ANTHROPIC_URL = "https://api.anthropic.com"

DEFAULT_MAX_TOKENS = 4096
"""What is sent where the config has no ``max_tokens``: the API requires it."""

_UNKNOWN = ("seed", "frequency_penalty", "presence_penalty")
_IN_EXTRA_BODY = ("temperature", "top_p", "top_k")
# Newer models refuse these, and the SDK has no arguments for them; older models take them.


# Any: the SDK's clients, and arguments that a user's config decides.
class AnthropicDialect:
    """Speaks messages."""

    name = "anthropic"
    sdk = "anthropic"
    url = ANTHROPIC_URL
    renamed: Mapping[str, tuple[str, str]] = {}

    def no_key(self, model: str) -> str:
        """Return what to say where there is neither a key nor an address."""
        return (
            f"there is no key for the model {model!r}. Do one of these:\n"
            "  export ANTHROPIC_API_KEY=...                    # ask Anthropic\n"
            '  "base_url": "http://127.0.0.1:8000"             # ask a compatible server (in the '
            "config)\n"
            "  sandbox-sdk models install smollm2              # ask a small local model, "
            'with "model": "local/smollm2"'
        )

    def unknown(self, request: ModelRequest) -> list[str]:
        """Return the parameters that only others have."""
        given = request.parameters
        found = [name for name in _UNKNOWN if name in given]
        if given.get("n", 1) > 1:
            found.append("n")
        form = given.get("response_format", {}).get("type", "json_schema")
        if form not in ("json_schema", "text"):
            found.append("response_format")
        return found

    def connect(self, server: Server) -> Any:
        """Return the SDK's client."""
        from anthropic import AsyncAnthropic, DefaultAioHttpClient

        return AsyncAnthropic(
            api_key=server.key or NO_KEY,
            base_url=server.url.removesuffix("/v1"),  # which the SDK adds
            max_retries=0,
            http_client=DefaultAioHttpClient(),
        )

    def create(self, client: Any) -> Any:
        """Return the method that makes a call."""
        return client.messages.with_streaming_response.create

    def arguments(
        self, request: ModelRequest, parameters: Mapping[str, Any], warnings: list[str]
    ) -> dict[str, Any]:
        """Return that method's arguments."""
        left = dict(parameters)
        left.pop("n", None)
        system, messages = messages_of(request.messages, request.model)
        arguments: dict[str, Any] = {
            "model": request.model,
            "messages": messages,
            "max_tokens": left.pop("max_tokens", DEFAULT_MAX_TOKENS),
        }
        if "max_tokens" not in parameters:
            warnings.append(
                f"anthropic requires 'max_tokens'; {DEFAULT_MAX_TOKENS:,} was sent, as the config "
                "has none"
            )
        if system:
            arguments["system"] = system
        if "stop" in left:
            arguments["stop_sequences"] = list(left.pop("stop"))
        if request.tools:
            arguments["tools"] = tools_of(request.tools)
        asked, parallel = left.pop("tool_choice", None), left.pop("parallel_tool_calls", None)
        if request.tools and (choice := tool_choice(asked, parallel=parallel)):
            arguments["tool_choice"] = choice
        effort, form = left.pop("reasoning_effort", None), left.pop("response_format", None)
        if config := output_config(effort, form):
            arguments["output_config"] = config
        body = {name: left.pop(name) for name in _IN_EXTRA_BODY if name in left}
        body |= left.pop("extra_body", {})
        if body:
            arguments["extra_body"] = body
        return {**arguments, **left}

    def read(self, body: Any, model: str) -> ModelOutput:
        """Return the answer in a message.

        Raises:
            ModelError: It is none.
        """
        return parse_message(body, model)
