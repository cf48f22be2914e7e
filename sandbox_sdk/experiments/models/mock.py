"""The scripted model: for tests, for trying things out, never in place of a real model.

``mock/echo`` answers with the last user message. ``mock/script`` answers with the items of
``parameters["extra_body"]["script"]``, one per model call. An item is a text, or a mapping:

- ``content``: the answer's text;
- ``tool_calls``: ``[{"name": "bash", "arguments": {"command": "ls"}}]``, where arguments may also
  be text, sent as it is, even if it is no JSON;
- ``finish_reason``: OpenAI's word; by default ``tool_calls`` or ``stop``;
- ``usage``: ``{"input_tokens": 3, "output_tokens": 5}``; by default words are counted;
- ``delay``: seconds to wait before answering;
- ``error``: ``{"code": "model_rate_limited", "message": "...", "retryable": true}``, raised
  ``times`` times (1 by default) before the item's answer is given.

Every result says ``mock: true``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import anyio
import attrs

from sandbox_sdk.errors import ModelError, ModelNotFound
from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest, ToolUse
from sandbox_sdk.experiments.models.chat import STOP_REASONS
from sandbox_sdk.experiments.usage import TokenUsage
from sandbox_sdk.parse import fault, suggestion
from sandbox_sdk.wire import ERRORS

_SCRIPT = "experiment.parameters.extra_body.script"
_ERRORS = {code: cls for code, cls in ERRORS.items() if issubclass(cls, ModelError)}


class MockProvider:
    """Answers from a script."""

    name = "mock"
    supports_tools = True

    async def check(self, request: ModelRequest) -> None:
        """Go on if the script can be played.

        Raises:
            ModelNotFound: It is neither ``mock/echo`` nor ``mock/script``.
            ConfigError: There is no script, or an item is none.
        """
        if request.model not in ("echo", "script"):
            hint = suggestion(request.model, ("echo", "script"))
            raise ModelNotFound(f"there is no model mock/{request.model}{hint}")
        if request.model == "script":
            _read_script(request)

    async def generate(self, request: ModelRequest) -> ModelOutput:
        """Return the script's answer to this call.

        Raises:
            ModelError: The script says so, or has ended.
        """
        if request.model == "echo":
            return _answer(request, {"content": _last_user_text(request.messages)})
        script = _read_script(request)
        if request.call > len(script):
            raise ModelError(
                f"the script of mock/script ended: it has {len(script)} answers and this is "
                f"call {request.call}; add an answer, or lower limits.turns",
                model="mock/script",
            )
        item = script[request.call - 1]
        await anyio.sleep(item.get("delay", 0))
        if "error" in item and request.resend < item.get("times", 1):
            said = item["error"]
            cls = _ERRORS[said.get("code", "model")]
            raise cls(
                said.get("message", "the script says so"),
                model="mock/script",
                retryable=said.get("retryable", False),
            )
        return _answer(request, item)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""


def _answer(request: ModelRequest, item: Mapping[str, Any]) -> ModelOutput:
    text: str = item.get("content", "")
    uses = tuple(
        ToolUse(
            id=f"call_{request.call}_{index}",
            name=call["name"],
            arguments=_arguments(call.get("arguments", {})),
        )
        for index, call in enumerate(item.get("tool_calls", ()), start=1)
    )
    finish: str = item.get("finish_reason", "tool_calls" if uses else "stop")
    sent = sum(len(_text_of(message).split()) for message in request.messages)
    counted = {"input_tokens": sent, "output_tokens": len(text.split())}
    return ModelOutput(
        texts=(text,) * request.parameters.get("n", 1),
        tool_uses=uses,
        stop_reason=STOP_REASONS.get(finish, "unknown"),
        finish_reason=finish,
        usage=attrs.evolve(TokenUsage(requests=1), **{**counted, **item.get("usage", {})}),
        response_model=f"mock/{request.model}",
        mock=True,
    )


def _arguments(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _last_user_text(messages: tuple[Mapping[str, Any], ...]) -> str:
    users = [message for message in messages if message["role"] == "user"]
    return _text_of(users[-1]) if users else ""


def _read_script(request: ModelRequest) -> tuple[Mapping[str, Any], ...]:
    script = request.parameters.get("extra_body", {}).get("script")
    if script is None:
        raise fault(_SCRIPT, 'is required by "mock/script": the list of its answers')
    return fields.list_of(_item)(script, _SCRIPT)


def _item(value: object, path: str) -> Mapping[str, Any]:
    if isinstance(value, str):
        return {"content": value}
    return fields.read_fields(value, path, _ITEM)


def _section(readers: Mapping[str, fields.Reader], *required: str) -> fields.Reader:
    def read(value: object, path: str) -> object:
        found = fields.read_fields(value, path, readers)
        if missing := [name for name in required if name not in found]:
            raise fault(f"{path}.{missing[0]}", "is required")
        return found

    return read


_CALL = _section({"name": fields.line, "arguments": fields.json_value}, "name")
_USAGE = _section({"input_tokens": fields.whole(0), "output_tokens": fields.whole(0)})
_ERROR = _section({"code": fields.word(*_ERRORS), "message": fields.text, "retryable": fields.flag})

_ITEM: Mapping[str, fields.Reader] = {
    "content": fields.text,
    "tool_calls": fields.list_of(_CALL),
    "finish_reason": fields.line,
    "usage": _USAGE,
    "delay": fields.number(0, 3600),
    "error": _ERROR,
    "times": fields.whole(1),
}
