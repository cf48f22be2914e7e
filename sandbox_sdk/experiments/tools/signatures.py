"""What a model is told of a Python function: a JSON schema, from its signature's text alone."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from sandbox_sdk.parse import Faults, fault

Function = ast.FunctionDef | ast.AsyncFunctionDef
"""A function's syntax."""

_PLAIN: Mapping[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "tuple": {"type": "array"},
    "dict": {"type": "object"},
    "None": {"type": "null"},
    "Any": {},
}
_LISTS = ("list", "List", "tuple", "Sequence")
_MAPPINGS = ("dict", "Dict", "Mapping")


def parameters_of(function: Function, path: str) -> dict[str, Any]:
    """Return the JSON schema of a function's arguments.

    Args:
        function: Its syntax.
        path: Where it stands in a config.

    Raises:
        ConfigError: An argument cannot be given as JSON; all faults at once.
    """
    faults = Faults()
    told = function.args
    for name, wrong in (
        ("*", told.vararg),
        ("**", told.kwarg),
        ("/", told.posonlyargs[0] if told.posonlyargs else None),
    ):
        if wrong is not None:
            faults.add(
                path, f"the argument {wrong.arg!r} ({name}) has no name that a model can use"
            )
    properties: dict[str, Any] = {}
    for argument in (*told.args, *told.kwonlyargs):
        with faults.collect():
            properties[argument.arg] = _schema(argument.annotation, f"{path}.{argument.arg}")
    faults.check()
    return {
        "type": "object",
        "properties": properties,
        "required": _required(told),
        "additionalProperties": False,
    }


def _required(told: ast.arguments) -> list[str]:
    plain = [argument.arg for argument in told.args]
    named = zip(told.kwonlyargs, told.kw_defaults, strict=True)
    return [
        *plain[: len(plain) - len(told.defaults)],
        *(argument.arg for argument, default in named if default is None),
    ]


def _schema(annotation: ast.expr | None, path: str) -> dict[str, Any]:
    match annotation:
        case None:
            return {}
        case ast.Constant(value=None):
            return dict(_PLAIN["None"])
        case ast.Constant(value=str() as text):
            return _schema(ast.parse(text, mode="eval").body, path)
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _PLAIN:
            return dict(_PLAIN[name])
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return {"anyOf": [*_options(left, path), *_options(right, path)]}
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            return _generic(name, inner, path)
        case _:
            raise fault(
                path,
                f"the type {ast.unparse(annotation)} has no form in JSON; use str, int, float, "
                'bool, list, dict, Literal or unions of them, or describe it in "parameters"',
            )


def _options(annotation: ast.expr, path: str) -> list[dict[str, Any]]:
    found = _schema(annotation, path)
    options: list[dict[str, Any]] = found.get("anyOf", [found])
    return options


def _generic(name: str, inner: ast.expr, path: str) -> dict[str, Any]:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name in _LISTS:
        return {"type": "array", "items": _schema(parts[0], path)}
    if name in _MAPPINGS:
        return {"type": "object", "additionalProperties": _schema(parts[-1], path)}
    if name == "Optional":
        return {"anyOf": [*_options(inner, path), dict(_PLAIN["None"])]}
    if name == "Union":
        return {"anyOf": [option for part in parts for option in _options(part, path)]}
    if name == "Literal" and all(isinstance(part, ast.Constant) for part in parts):
        return {"enum": [part.value for part in parts if isinstance(part, ast.Constant)]}
    raise fault(path, f'the type {name}[...] has no form in JSON; describe it in "parameters"')
