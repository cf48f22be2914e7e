"""Chat completions in OpenAI's form: read strictly, since servers and models are not trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from sandbox_sdk.errors import ModelError
from sandbox_sdk.experiments.models.base import ModelOutput, ToolUse
from sandbox_sdk.experiments.usage import StopReason, TokenUsage

STOP_REASONS: Mapping[str, StopReason] = {
    "stop": "stop",
    "length": "max_tokens",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""OpenAI's finish reasons in our words; any other is ``unknown``."""

_KINDS = ("prompt", "completion")
_MOST_TOKENS = 2**53


def parse_json(data: bytes | str, model: str) -> Any:
    """Return what a server's answer holds.

    Raises:
        ModelError: It is not JSON.
    """
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        text = data[:200] if isinstance(data, str) else data[:200].decode("utf-8", "replace")
        raise ModelError(
            f"the server of {model!r} answered with something that is not JSON, beginning "
            f"{text!r}; check that the address is that of an API (OpenAI-compatible ones end in "
            "/v1)",
            model=model,
            retryable=True,
        ) from None


def parse_completion(body: Any, model: str) -> ModelOutput:
    """Return the answer in a chat completion.

    Raises:
        ModelError: It is none.
    """
    match body:
        case {"choices": [{"message": dict()}, *_] as choices}:
            pass
        case _:
            raise ModelError(
                f"the server of {model!r} answered with JSON that is no chat completion: "
                f"{excerpt(body)}; check that the address is an OpenAI-compatible API",
                model=model,
                retryable=True,
            )
    first: Any = choices[0]
    uses = _tool_uses(first["message"], model)
    finish = first.get("finish_reason")
    finish = clean(finish) if isinstance(finish, str) else None
    reason = STOP_REASONS.get(finish or "", "unknown")
    return ModelOutput(
        texts=tuple(_text(choice) for choice in choices),
        tool_uses=uses,
        stop_reason="tool_calls" if uses and reason == "stop" else reason,
        finish_reason=finish,
        usage=_usage(body.get("usage")),
        response_model=clean_or_none(body.get("model")),
        system_fingerprint=clean_or_none(body.get("system_fingerprint")),
        request_id=clean_or_none(body.get("id")),
    )


def _text(choice: Any) -> str:
    match choice:
        case {"message": {"content": str() as text}}:
            return clean(text)
        # Some servers answer with a list of parts; a refusal has a field of its own.
        case {"message": {"content": parts}} if isinstance(parts, list):
            texts = [object_of(part).get("text") for part in _list(parts)]
            return clean("".join(text for text in texts if isinstance(text, str)))
        case {"message": {"refusal": str() as text}}:
            return clean(text)
        case _:
            return ""


def _tool_uses(message: Any, model: str) -> tuple[ToolUse, ...]:
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise _bad_tool_call(calls, model)
    return tuple(_tool_use(call, model) for call in _list(calls))


def _tool_use(call: Any, model: str) -> ToolUse:
    match call:
        case {"function": {"name": str() as name, **rest}}:
            arguments = rest.get("arguments")
            if arguments is None:
                arguments = "{}"
            elif not isinstance(arguments, str):
                # Some servers send an object where OpenAI sends its text.
                arguments = json.dumps(arguments)
            identity = call.get("id")
            return ToolUse(
                id=clean(identity) if isinstance(identity, str) else "",
                name=clean(name),
                arguments=clean(arguments),
            )
        case _:
            raise _bad_tool_call(call, model)


def _bad_tool_call(call: object, model: str) -> ModelError:
    return ModelError(
        f"the server of {model!r} answered with a tool call that is none: {excerpt(call)}",
        model=model,
        retryable=True,
    )


def _usage(usage: Any) -> TokenUsage:
    told = object_of(usage)
    sent, answered = (object_of(told.get(f"{kind}_tokens_details")) for kind in _KINDS)
    input_tokens, output_tokens = (count(told.get(f"{kind}_tokens")) for kind in _KINDS)
    return TokenUsage(
        input_tokens=input_tokens or 0,
        output_tokens=output_tokens or 0,
        cache_read_tokens=count(sent.get("cached_tokens")),
        cache_write_tokens=count(sent.get("cache_write_tokens")),
        reasoning_tokens=count(answered.get("reasoning_tokens")),
        requests=1,
        unmetered_requests=int(input_tokens is None or output_tokens is None),
    )


def object_of(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, or an empty one in place of anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def count(value: Any) -> int | None:
    """Return a number of tokens, or ``None`` in place of anything else."""
    counted = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_TOKENS
    return value if counted else None


def clean_or_none(value: Any) -> str | None:
    """Return a short text, or ``None`` in place of anything else."""
    return clean(value)[:500] if isinstance(value, str) else None


def clean(text: str) -> str:
    """Return the text without what no file can hold."""
    # JSON can smuggle in half a character, which no file and no other server takes.
    return text.encode("utf-8", "replace").decode() if not text.isascii() else text


def excerpt(value: object) -> str:
    """Return the beginning of a JSON value, to be shown in an error."""
    text = json.dumps(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
