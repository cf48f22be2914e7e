"""Conversations and tools in OpenAI's form, as Anthropic's messages want them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sandbox_sdk.errors import ModelError
from sandbox_sdk.experiments.models.chat import object_of

_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


# Any: messages and tools are JSON.
def messages_of(
    messages: Sequence[Mapping[str, Any]], model: str
) -> tuple[str, list[dict[str, Any]]]:
    """Return the system's text, and the turns of user and assistant, which alternate.

    Args:
        messages: A conversation in OpenAI's form.
        model: Whom it is for.

    Raises:
        ModelError: It holds content that has no form there.
    """
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        match role:
            case "system" | "developer":
                system += [block["text"] for block in _blocks(content, model) if "text" in block]
                continue
            case "assistant":
                blocks = [*message.get("thinking", ()), *_blocks(content, model)]
                blocks += [_tool_use(call) for call in message.get("tool_calls") or ()]
            case "tool":
                role, identity = "user", message.get("tool_call_id", "")
                result = {"type": "tool_result", "tool_use_id": identity}
                told = _blocks(content, model)
                blocks = [{**result, "content": told} if told else result]
            case _:
                blocks = _blocks(content, model)
        if turns and turns[-1]["role"] == role:
            # The results of all calls of a turn stand in the one turn that follows it.
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return "\n\n".join(system), turns


def tools_of(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return tool definitions in Anthropic's form."""
    return [
        {
            "name": tool["function"]["name"],
            "description": tool["function"].get("description", ""),
            "input_schema": tool["function"].get("parameters", {"type": "object"}),
        }
        for tool in tools
    ]


def tool_choice(asked: Any, *, parallel: bool | None) -> dict[str, Any]:
    """Return which tool may be used, in Anthropic's form; empty where nothing is asked for.

    Args:
        asked: OpenAI's ``tool_choice``.
        parallel: OpenAI's ``parallel_tool_calls``.
    """
    match asked:
        case None:
            choice = {} if parallel is None else {"type": "auto"}
        case {"function": {"name": str() as name}}:
            choice = {"type": "tool", "name": name}
        case str():
            choice = {"type": _CHOICES.get(asked, asked)}
        case _:
            choice = dict(asked)
    if parallel is False and choice["type"] != "none":
        return {**choice, "disable_parallel_tool_use": True}
    return choice


def output_config(effort: str | None, form: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how to answer, in Anthropic's form.

    Args:
        effort: OpenAI's ``reasoning_effort``.
        form: OpenAI's ``response_format``.
    """
    config: dict[str, Any] = {} if effort is None else {"effort": effort}
    match form:
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            config["format"] = {"type": "json_schema", "schema": schema}
        case _:
            pass  # plain text, which is what comes by itself
    return config


def _blocks(content: Any, model: str) -> list[dict[str, Any]]:
    """Return content as blocks; empty text is none, since the API refuses it."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks = [_block(part, model) for part in cast("Sequence[Any]", content or ())]
    return [block for block in blocks if block.get("text") != ""]


def _block(part: Any, model: str) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": str() as text}:
            return {"type": "text", "text": text}
        case {"type": "image_url", "image_url": {"url": str() as url}}:
            return {"type": "image", "source": _source(url)}
        case _:
            kind = object_of(part).get("type")
            raise ModelError(
                f"a message holds content of the type {kind!r}, which cannot be sent to "
                f"anthropic/{model}; text and image_url can",
                model=model,
                unbilled=True,
            )


def _source(url: str) -> dict[str, str]:
    head, _, data = url.partition(";base64,")
    if url.startswith("data:") and data:
        return {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
    return {"type": "url", "url": url}


def _tool_use(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        given = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        # What another model wrote, and no JSON object, can still be shown to this one.
        given = {"raw": function["arguments"]}
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": given}
