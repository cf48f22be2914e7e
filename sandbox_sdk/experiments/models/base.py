"""What a model provider is: one call in, one answer out, every failure a ``ModelError``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from sandbox_sdk.experiments.records.redaction import Redactor
from sandbox_sdk.experiments.usage import StopReason, TokenUsage

ONE_REQUEST = TokenUsage(requests=1, unmetered_requests=1)
"""The usage of a call whose provider tells no tokens."""


# Any: messages, parameters and tools are JSON in OpenAI's form.
@attrs.frozen(kw_only=True)
class ModelRequest:
    """One call of a model.

    Attributes:
        model: The model without its provider.
        messages: The conversation so far, in OpenAI's form.
        parameters: Sampling parameters by OpenAI's names; only what is to be sent.
        tools: Tool definitions in OpenAI's form.
        base_url: The server's address, where the config names one.
        api_key_env: The environment variable that holds the key, where the config names one.
        drop_unsupported: Leave out, with a warning, parameters the model refuses.
        call: The number of the call within the attempt, from 1.
        resend: How often this call was sent before, from 0.
        attempt_timeout: Seconds until the complete answer.
    """

    model: str
    messages: tuple[Mapping[str, Any], ...] = attrs.field(default=(), repr=False)
    parameters: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=False)
    tools: tuple[Mapping[str, Any], ...] = attrs.field(default=(), repr=False)
    base_url: str | None = None
    api_key_env: str | None = None
    drop_unsupported: bool = False
    call: int = 1
    resend: int = 0
    attempt_timeout: float = 300.0


@attrs.frozen(kw_only=True)
class ToolUse:
    """A tool call as the model asked for it, not checked yet.

    Attributes:
        id: The model's id of the call; may be empty.
        name: The tool's name.
        arguments: JSON text, as it came.
    """

    id: str
    name: str
    arguments: str


@attrs.frozen(kw_only=True)
class ModelOutput:
    """One answer of a model.

    Attributes:
        texts: The text of every choice; the first is the answer.
        tool_uses: The tools that the first choice asks for.
        thinking: Blocks of hidden reasoning that the provider wants back, as they came, with the
            rest of the conversation.
        stop_reason: Why the answer ended.
        finish_reason: The same in the provider's own word.
        usage: Tokens and requests of this call.
        response_model: The model as the provider names it.
        system_fingerprint: The provider's word for its version, or a local file's SHA-256.
        request_id: The provider's id of the request.
        warnings: What a reader should know.
        mock: Whether no model was asked.
    """

    texts: tuple[str, ...] = ("",)
    tool_uses: tuple[ToolUse, ...] = ()
    thinking: tuple[Mapping[str, Any], ...] = ()
    stop_reason: StopReason = "unknown"
    finish_reason: str | None = None
    usage: TokenUsage = ONE_REQUEST
    response_model: str | None = None
    system_fingerprint: str | None = None
    request_id: str | None = None
    warnings: tuple[str, ...] = ()
    mock: bool = False

    @property
    def text(self) -> str:
        """The answer."""
        return self.texts[0] if self.texts else ""

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message of the conversation, in OpenAI's form."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.thinking:
            message["thinking"] = list(self.thinking)
        if self.tool_uses:
            message["tool_calls"] = [
                {
                    "id": use.id,
                    "type": "function",
                    "function": {"name": use.name, "arguments": use.arguments},
                }
                for use in self.tool_uses
            ]
        return message

    def to_json(self) -> dict[str, Any]:
        """Return the answer as JSON, for the journal."""
        told = {name: getattr(self, name) for name in _OUTPUT_FIELDS}
        told["usage"] = attrs.asdict(self.usage)
        told["tool_uses"] = [attrs.asdict(use) for use in self.tool_uses]
        return told

    def redacted(self, redactor: Redactor) -> ModelOutput:
        """Return the answer without the secrets that a server may have echoed."""
        return attrs.evolve(
            self,
            texts=tuple(map(redactor.text, self.texts)),
            tool_uses=tuple(
                ToolUse(
                    id=redactor.text(use.id),
                    name=redactor.text(use.name),
                    arguments=redactor.text(use.arguments),
                )
                for use in self.tool_uses
            ),
            thinking=tuple(redactor.value(block) for block in self.thinking),
            warnings=tuple(map(redactor.text, self.warnings)),
        )


_OUTPUT_FIELDS = tuple(field.name for field in attrs.fields(ModelOutput))


class ModelProvider(Protocol):
    """Answers model calls of one kind. It never tries again and never asks another model."""

    @property
    def name(self) -> str:
        """The word before the slash in ``provider/model``."""
        ...

    @property
    def supports_tools(self) -> bool:
        """Whether its models can be expected to use OpenAI's ``tools``."""
        ...

    async def check(self, request: ModelRequest) -> None:
        """Go on if the model can be called as far as is known without calling it.

        Raises:
            ConfigError: The config cannot mean anything to this provider.
            ModelError: There is no key, no such model, or nothing at its address.
        """

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Call the model once.

        Raises:
            ModelError: It gave no answer; ``retryable`` tells whether it may later.
        """
        ...

    async def aclose(self) -> None:
        """Release connections and processes. The provider may be used again."""
