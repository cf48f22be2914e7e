"""The OpenAPI 3.1 document, made of the table of routes and of the classes that they name."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from sandbox_sdk.auth.exchange import TOKEN_PATH
from sandbox_sdk.backends.protocol import KEY_HEADER, PROBLEM_TYPE, VERSION, VERSION_HEADER
from sandbox_sdk.server.routes import ROUTES, Route
from sandbox_sdk.server.tokens import TOKEN_OPERATION
from sandbox_sdk.wire import ERRORS

_PLAIN: Mapping[object, str] = {
    str: "string",
    Path: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    NoneType: "null",
}

Schema = dict[str, Any]
"""A JSON schema; its values are as many kinds as JSON's."""


@cache
def document() -> Schema:
    """Return the document."""
    schemas: Schema = {"Problem": _problem()}
    paths: dict[str, Schema] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    paths[TOKEN_PATH] = {"post": TOKEN_OPERATION}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sandbox SDK server",
            "version": VERSION,
            "summary": "Isolated sandboxes over HTTP.",
            "x-sdk-version": version("sandbox-sdk"),
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                scheme: {"type": "http", "scheme": scheme} for scheme in ("basic", "bearer")
            },
        },
        # The second is a Unix socket, whose other end the kernel names.
        "security": [{"bearer": []}, {}],
    }


def _operation(route: Route, schemas: Schema) -> Schema:
    parameters: list[Schema] = [
        _parameter(each.name, "query", each.kind, each.text) for each in route.query
    ]
    if "{id}" in route.path:
        parameters.insert(0, _parameter("id", "path", "string", route.about, required=True))
    if route.has_effect:
        parameters.append(
            _parameter(KEY_HEADER, "header", "string", "Makes a repetition the same request.")
        )
    parameters.append(
        _parameter(VERSION_HEADER, "header", "string", f"The protocol's version, {VERSION}.")
    )
    operation: Schema = {
        "operationId": route.name,
        "summary": route.text,
        "parameters": parameters,
        "responses": {
            str(route.status): _success(route, schemas),
            "default": {
                "description": "What went wrong.",
                "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if route.scope:
        operation["x-scope"] = route.scope
    if route.body is not None:
        content = {"application/json": {"schema": _schema(route.body, schemas)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(name: str, where: str, kind: str, text: str, *, required: bool = False) -> Schema:
    return {
        "name": name,
        "in": where,
        "required": required,
        "description": text,
        "schema": {"type": kind},
    }


def _success(route: Route, schemas: Schema) -> Schema:
    if route.streams:
        return {"description": "The bytes.", "content": {"application/octet-stream": {}}}
    if route.answer is None:
        return {"description": "Done."}
    content = {"application/json": {"schema": _schema(route.answer, schemas)}}
    return {"description": "Done.", "content": content}


def _problem() -> Schema:
    """What every refusal is told as."""
    return {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "message", "request_id"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "message": {"type": "string"},
            "request_id": {"type": "string"},
            "code": {"type": "string", "enum": sorted(ERRORS)},
        },
    }


# Any: what annotations say is looked at case by case.
def _schema(kind: Any, schemas: Schema) -> Schema:
    """Return the schema of a type; classes of ours go to ``schemas``."""
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if kind is bytes:
        return {"type": "string", "contentEncoding": "base64"}
    origin, of = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(each, schemas) for each in of]}
    if origin is Literal:
        return {"enum": list(of)}
    if origin in (tuple, Sequence):
        return {"type": "array", "items": _schema(of[0], schemas)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(of[1], schemas)}
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"enum": [each.value for each in kind]}
    if kind.__name__ not in schemas:
        schemas[kind.__name__] = {}  # it is being made: classes may hold themselves
        schemas[kind.__name__] = _object(kind, schemas)
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _object(cls: Any, schemas: Schema) -> Schema:
    hints = typing.get_type_hints(cls)
    fields = attrs.fields(cls)
    return {
        "type": "object",
        "required": [field.name for field in fields if field.default is attrs.NOTHING],
        "properties": {field.name: _schema(hints[field.name], schemas) for field in fields},
    }
