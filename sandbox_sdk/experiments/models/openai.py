"""OpenAI's chat completions, from OpenAI or from any server that speaks them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest
from sandbox_sdk.experiments.models.chat import parse_completion
from sandbox_sdk.experiments.models.dialect import NO_KEY, Server

OPENAI_URL = "https://api.openai.com/v1"

_RENAMED = (
    "the model refused 'max_tokens'; it was sent as 'max_completion_tokens', which counts hidden "
    "reasoning too"
)
_IN_EXTRA_BODY = ("top_k",)  # common, but not OpenAI's


# Any: the SDK's clients, and arguments that a user's config decides.
class OpenAIDialect:
    """Speaks chat completions."""

    name = "openai"
    sdk = "openai"
    url = OPENAI_URL
    renamed: Mapping[str, tuple[str, str]] = {"max_tokens": ("max_completion_tokens", _RENAMED)}

    def no_key(self, model: str) -> str:
        """Return what to say where there is neither a key nor an address."""
        return (
            f"there is no key for the model {model!r}. Do one of these:\n"
            "  export OPENAI_API_KEY=...                       # ask OpenAI\n"
            '  "base_url": "http://127.0.0.1:8000/v1"          # ask an OpenAI-compatible '
            "server (in the config)\n"
            "  sandbox-sdk models install smollm2              # ask a small local model, "
            'with "model": "local/smollm2"'
        )

    def unknown(self, request: ModelRequest) -> list[str]:
        """Return nothing: servers differ, and say themselves what they refuse."""
        return []

    def connect(self, server: Server) -> Any:
        """Return the SDK's client."""
        from openai import AsyncOpenAI, DefaultAioHttpClient

        return AsyncOpenAI(
            api_key=server.key or NO_KEY,
            base_url=server.url,
            max_retries=0,
            http_client=DefaultAioHttpClient(),
        )

    def create(self, client: Any) -> Any:
        """Return the method that makes a call."""
        return client.chat.completions.with_streaming_response.create

    def arguments(
        self, request: ModelRequest, parameters: Mapping[str, Any], warnings: list[str]
    ) -> dict[str, Any]:
        """Return that method's arguments."""
        arguments = dict(parameters)
        body = {name: arguments.pop(name) for name in _IN_EXTRA_BODY if name in arguments}
        body |= arguments.pop("extra_body", {})
        if body:
            arguments["extra_body"] = body
        if request.tools:
            arguments["tools"] = list(request.tools)
        return {"model": request.model, "messages": list(request.messages), **arguments}

    def read(self, body: Any, model: str) -> ModelOutput:
        """Return the answer in a chat completion.

        Raises:
            ModelError: It is none.
        """
        return parse_completion(body, model)
