"""What each field of an experiment's config may be, and which fields go together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.budgets.prices import read_prices
from sandbox_sdk.experiments.tools.tool_kinds import programs_of, read_tools
from sandbox_sdk.parse import Faults, fault, parse_size
from sandbox_sdk.values import MIB

_KEY_HINT = (
    "a key never belongs in a config, which is recorded; put it into an environment variable and "
    'name that variable with "api_key_env"'
)
_SECRETS = ("api_key", "apikey", "api-key", "key", "token", "secret", "password", "authorization")
_NEVER_IN_BODY = frozenset({"model", "messages", "stream", "tools", "n"})


def _or_none(reader: fields.Reader) -> fields.Reader:
    return lambda value, path: None if value is None else reader(value, path)


def _section(readers: Mapping[str, fields.Reader]) -> fields.Reader:
    return lambda value, path: fields.read_fields(value, path, readers)


def _tool_output(value: object, path: str) -> int:
    size = parse_size(value, path) if isinstance(value, str) else value
    return fields.whole(256, 64 * MIB)(size, path)


def _url(value: object, path: str) -> str:
    found = fields.line(value, path)
    try:
        parts = urlsplit(found)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise fault(path, "is not an address") from None
    if parts.scheme not in ("http", "https") or not host:
        raise fault(path, 'must be an address such as "http://127.0.0.1:8000/v1"')
    # The address is recorded and shown in errors, so nothing secret may stand in it.
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise fault(path, "must hold no user, password or query; " + _KEY_HINT)
    return found.rstrip("/")


def message(value: object, path: str) -> Mapping[str, object]:
    """Read a message in OpenAI's form."""
    found = fields.read_fields(value, path, _MESSAGE)
    if "role" not in found:
        raise fault(f"{path}.role", "is required")
    if "content" not in found and "tool_calls" not in found:
        raise fault(f"{path}.content", "is required")
    return found


def _content(value: object, path: str) -> object:
    if value is None or isinstance(value, str):
        return None if value is None else fields.text(value, path)
    return list(fields.list_of(fields.json_object)(value, path))


def _text_or_object(value: object, path: str) -> object:
    return fields.line(value, path) if isinstance(value, str) else fields.json_object(value, path)


def _extra_body(value: object, path: str) -> Mapping[str, object]:
    found = fields.json_object(value, path)
    faults = Faults()
    for key in sorted(_NEVER_IN_BODY & found.keys()):
        faults.add(f"{path}.{key}", "cannot be set here: the experiment sets it")
    faults.check()
    return found


def _extra_headers(value: object, path: str) -> Mapping[str, str]:
    found: dict[str, str] = fields.mapping_of(fields.line)(value, path)
    if wrong := [name for name in found if name.lower() == "authorization"]:
        raise fault(f"{path}.{wrong[0]}", _KEY_HINT)
    if wrong := [name for name in found if not name.replace("-", "").replace("_", "").isalnum()]:
        raise fault(path, f"{wrong[0]!r} is not the name of a header")
    return found


def _file_path(value: str, path: str) -> str:
    """Read a path that stays in the workspace: relative, without ``..`` and NUL."""
    parts = PurePosixPath(value).parts
    if not parts or value.startswith("/") or ".." in parts or "\0" in value or value.endswith("/"):
        raise fault(path, 'names a file outside the workspace; write a relative path without ".."')
    return value


def file_map(value: object, path: str) -> dict[str, str | bytes]:
    """Read file path -> content, as text or bytes."""

    def content(item: object, where: str) -> str | bytes:
        if isinstance(item, bytes):
            if len(item) > fields.LONGEST_TEXT:
                raise fault(
                    where, f"is more than the {fields.LONGEST_TEXT:,} bytes a file may have here"
                )
            return item
        return fields.text(item, where)

    found = fields.mapping_of(content)(value, path)
    faults = Faults()
    for name in found:
        with faults.collect():
            _file_path(name, f"{path}.{name}")
    faults.check()
    return found


def _variable_name(value: object, path: str) -> str:
    """Read the name of an environment variable. A wrong value is not shown: it may be a key."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", value):
        raise fault(path, 'must be the name of an environment variable, such as "OPENAI_API_KEY"')
    return value


def _pattern(value: object, path: str) -> str:
    return _file_path(fields.line(value, path), path)


_MESSAGE: Mapping[str, fields.Reader] = {
    "role": fields.word("system", "developer", "user", "assistant", "tool"),
    "content": _content,
    "name": fields.line,
    "tool_calls": fields.list_of(fields.json_object),
    "tool_call_id": fields.line,
}

PARAMETERS: Mapping[str, fields.Reader] = {
    "temperature": fields.number(0, 100),
    "top_p": fields.number(0, 1),
    "top_k": fields.whole(-1),
    "max_tokens": fields.whole(1),
    "stop": fields.one_or_more(fields.text),
    "seed": fields.whole(-(2**63), 2**63 - 1),
    "frequency_penalty": fields.number(-100, 100),
    "presence_penalty": fields.number(-100, 100),
    "n": fields.whole(1, 128),
    "reasoning_effort": fields.line,
    "response_format": fields.json_object,
    "tool_choice": _text_or_object,
    "parallel_tool_calls": fields.flag,
    "extra_body": _extra_body,
    "extra_headers": _extra_headers,
}
"""Sampling parameters by OpenAI's names, with what each may be."""

_SECONDS = fields.number(0, 10**8, above=True)

_LIMITS: Mapping[str, fields.Reader] = {
    "turns": fields.whole(1),
    "messages": _or_none(fields.whole(1)),
    "tokens": _or_none(fields.whole(1)),
    "cost": _or_none(fields.number(0, 10**9, above=True)),
    "time": _or_none(_SECONDS),
    "working_time": _or_none(_SECONDS),
    "tool_time": _or_none(_SECONDS),
    "tool_calls": _or_none(fields.whole(0)),
    "bad_calls": _or_none(fields.whole(1)),
    "tool_timeout": _SECONDS,
    "tool_output": _tool_output,
}

_RETRIES: Mapping[str, fields.Reader] = {
    "max_retries": fields.whole(0, 100),
    "timeout": _SECONDS,
    "attempt_timeout": _SECONDS,
}

FIELDS: Mapping[str, fields.Reader] = {
    "name": fields.line,
    "description": fields.text,
    "tags": fields.one_or_more(fields.line),
    "metadata": fields.json_object,
    "model": fields.line,
    "base_url": _url,
    "api_key_env": _variable_name,
    "prompt": fields.filled_text,
    "messages": fields.list_of(message),
    "code": fields.filled_text,
    "system": fields.text,
    "parameters": _section(PARAMETERS),
    "tools": read_tools,
    "tool_format": fields.word("auto", "function", "code_block"),
    "single_turn": fields.flag,
    "files": file_map,
    "setup": fields.filled_text,
    "artifacts": fields.one_or_more(_pattern),
    "limits": _section(_LIMITS),
    "retries": _section(_RETRIES),
    "drop_unsupported": fields.flag,
    "seed": fields.whole(-(2**63), 2**63 - 1),
    "prices": read_prices,
    "cache": fields.word("off", "use", "record", "replay"),
    "cassette": fields.line,
}
"""The fields of a config, with what each may be."""

HINTS = {
    **{name: f'belongs in "parameters": {{"{name}": ...}}' for name in PARAMETERS},
    **{name: _KEY_HINT for name in _SECRETS if name not in FIELDS},
}
"""What is said of a field that is not one, but that people write."""

_OF_A_MODEL = (
    *("model", "base_url", "api_key_env", "prompt", "messages", "system", "parameters", "tools"),
    *("tool_format", "single_turn", "retries", "drop_unsupported", "seed", "prices"),
    *("cache", "cassette"),
)


def contradictions(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the faults of fields that are each right but do not go together."""
    if "code" in found:
        wrong = [name for name in _OF_A_MODEL if name in found]
        return [(f"experiment.{name}", 'does not go with "code"') for name in wrong]
    faults: list[tuple[str, str]] = []
    if not found.get("model"):
        said = 'is required, such as "local/smollm2", "gpt-5.6-terra" or "mock/echo"'
        faults.append(("experiment.model", said + ' (or give "code" to run code alone)'))
    if bool(found.get("prompt")) == bool(found.get("messages")):
        faults.append(("experiment.prompt", 'give exactly one of "prompt" and "messages"'))
    tools, parameters = found.get("tools", ()), found.get("parameters", {})
    if not tools:
        if found.get("tool_format", "auto") != "auto":
            faults.append(("experiment.tool_format", 'needs "tools": ["python"] or ["bash"]'))
        if found.get("single_turn"):
            faults.append(("experiment.single_turn", 'needs "tools": ["python"] or ["bash"]'))
    elif found.get("tool_format") == "code_block" and len(programs_of(tools)) < len(tools):
        said = "code blocks can only ask for python and bash; leave out the other tools"
        faults.append(("experiment.tool_format", said))
    elif parameters.get("n", 1) > 1:
        faults.append(("experiment.parameters.n", 'must be 1 with "tools"'))
    if found.get("cache", "off") != "off" and not found.get("cassette"):
        faults.append(("experiment.cassette", f'is required with "cache": "{found["cache"]}"'))
    seeds = {found.get("seed"), parameters.get("seed")} - {None}
    if len(seeds) > 1:
        faults.append(("experiment.seed", 'differs from "parameters.seed"; give one of them'))
    return faults
