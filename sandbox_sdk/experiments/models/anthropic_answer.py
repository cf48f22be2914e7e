"""Anthropic's answers: read strictly, since servers and models are not trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sandbox_sdk.errors import ModelError
from sandbox_sdk.experiments.models.base import ModelOutput, ToolUse
from sandbox_sdk.experiments.models.chat import clean, clean_or_none, count, excerpt, object_of
from sandbox_sdk.experiments.usage import StopReason, TokenUsage

STOP_REASONS: Mapping[str, StopReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "max_tokens",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "model_context_window_exceeded": "model_length",
}
"""Anthropic's stop reasons in our words; any other is ``unknown``."""

_THOUGHTS = ("thinking", "redacted_thinking")


# Any: the body is JSON from a server.
def parse_message(body: Any, model: str) -> ModelOutput:
    """Return the answer in a message.

    Raises:
        ModelError: It is none.
    """
    match body:
        case {"type": "message", "content": list()} if all(
            isinstance(block, dict) for block in body["content"]
        ):
            blocks = cast("Sequence[Mapping[str, Any]]", body["content"])
        case _:
            raise ModelError(
                f"the server of {model!r} answered with JSON that is no message: {excerpt(body)}; "
                "check that the address is an Anthropic-compatible API",
                model=model,
                retryable=True,
            )
    finish = clean_or_none(body.get("stop_reason"))
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    return ModelOutput(
        texts=(clean("".join(text for text in texts if isinstance(text, str))),),
        tool_uses=tuple(
            _tool_use(block, model) for block in blocks if block.get("type") == "tool_use"
        ),
        thinking=tuple(_thought(block) for block in blocks if block.get("type") in _THOUGHTS),
        stop_reason=STOP_REASONS.get(finish or "", "unknown"),
        finish_reason=finish,
        usage=_usage(body.get("usage")),
        response_model=clean_or_none(body.get("model")),
        request_id=clean_or_none(body.get("id")),
    )


def _thought(block: Mapping[str, Any]) -> dict[str, str]:
    """Return a block of hidden reasoning: texts and signatures, of which it is made."""
    return {name: clean(text) for name, text in block.items() if isinstance(text, str)}


def _tool_use(block: Mapping[str, Any], model: str) -> ToolUse:
    match block:
        case {"name": str() as name, "input": given}:
            identity = block.get("id")
            return ToolUse(
                id=clean(identity) if isinstance(identity, str) else "",
                name=clean(name),
                # As ASCII, so that half a character stays an escape until somebody reads it.
                arguments=json.dumps(given),
            )
        case _:
            raise ModelError(
                f"the server of {model!r} answered with a tool call that is none: {excerpt(block)}",
                model=model,
                retryable=True,
            )


def _usage(usage: Any) -> TokenUsage:
    """Return the tokens: theirs of the input are apart by cache, ours count all of it."""
    told = object_of(usage)
    read, written = (count(told.get(f"cache_{kind}_input_tokens")) for kind in ("read", "creation"))
    sent, answered = count(told.get("input_tokens")), count(told.get("output_tokens"))
    return TokenUsage(
        input_tokens=(sent or 0) + (read or 0) + (written or 0),
        output_tokens=answered or 0,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=count(object_of(told.get("output_tokens_details")).get("thinking_tokens")),
        requests=1,
        unmetered_requests=int(sent is None or answered is None),
    )
