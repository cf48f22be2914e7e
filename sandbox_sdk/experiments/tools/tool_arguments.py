"""Arguments of a tool call, checked against the tool's JSON schema before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sandbox_sdk.errors import ConfigError
from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.results.result import ToolError

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}

_LONGEST_FAULT = 300


# Any: arguments and schemas are JSON.
def parse_arguments(text: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any] | ToolError:
    """Return the arguments of a call, or what is wrong with them, for the model to mend.

    Args:
        text: What the model wrote.
        name: The tool.
        schema: The schema of its arguments; names, types and words are checked, one level deep.
    """
    form = "{" + ", ".join(f'"{key}": ...' for key in schema.get("properties", ())) + "}"
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _parsing(f"the arguments are not valid JSON ({error}); write {form}")
    try:
        # Not too deep for those who walk through it, and no half characters, which no file takes.
        given = fields.json_object(arguments, "the arguments")
    except ConfigError as error:
        return _parsing(f"{error.message[:_LONGEST_FAULT]}; write {form}")
    faults = list(_faults(given, schema))
    return _parsing(f"{name}: {'; '.join(faults)}; write {form}") if faults else given


def _faults(given: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    known: Mapping[str, Any] = schema.get("properties", {})
    found = [f'"{key}" is missing' for key in schema.get("required", ()) if key not in given]
    if schema.get("additionalProperties") is False:
        found += [f'there is no "{key}"' for key in given if key not in known]
    for key, value in given.items():
        rules: Mapping[str, Any] = known.get(key, {})
        options: list[Mapping[str, Any]] = rules.get("anyOf", [rules])
        if not any(_fits(value, option) for option in options):
            found.append(f'"{key}" must be {" or ".join(map(_wanted, options))}')
    return found


def _fits(value: object, rules: Mapping[str, Any]) -> bool:
    if "enum" in rules and value not in rules["enum"]:
        return False
    kinds = _TYPES.get(str(rules.get("type")))
    if kinds is None:
        return True
    # JSON knows true from 1, and Python does not.
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _wanted(rules: Mapping[str, Any]) -> str:
    if "enum" in rules:
        return "one of " + ", ".join(json.dumps(word) for word in rules["enum"])
    return f"of type {rules.get('type', 'any')}"


def _parsing(message: str) -> ToolError:
    return ToolError(type="parsing", message=message)
