"""Values and errors to JSON and back, through one strict converter.

Strict means: no text becomes a number, no number a truth value, no 1.9 a 1; unknown keys are
faults. What our own store or a newer version wrote is read with ``lenient=True``: unknown keys
are ignored, types are not. An error's class comes from a closed table by its code.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, get_origin

import attrs

from sandbox_sdk import errors, values
from sandbox_sdk.errors import ConfigError, ProtocolError, SandboxError
from sandbox_sdk.parse import describe, suggestion

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

Json = dict[str, Any]
"""A JSON object; its values are whatever the class at the other end says."""

ERRORS: Mapping[str, type[SandboxError]] = {
    error.code: error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, SandboxError)
}
"""The closed table from an error's code to its class."""


def to_json(value: object) -> Json:
    """Return one of our values as a JSON object; bytes become base64."""
    plain: Json = _converter(lenient=False).unstructure(value)
    return plain


def from_json(cls: type[T], data: object, *, lenient: bool = False, path: str = "") -> T:
    """Return the value that a JSON object describes.

    Args:
        cls: The value's class.
        data: What ``json.loads`` gave.
        lenient: Ignore unknown keys, as in what a newer version wrote.
        path: What the faults' paths begin with.

    Raises:
        ConfigError: The data does not describe a value of that class; all faults at once.
    """
    try:
        return _converter(lenient=lenient).structure(data, cls)
    except Exception as error:  # noqa: BLE001 - cattrs raises what hooks and classes raise
        lines = tuple(_faults(error, path))
        text = lines[0] if len(lines) == 1 else "".join(f"\n  {line}" for line in lines)
        raise ConfigError(f"not a valid {cls.__name__}: {text}", faults=lines) from None


def error_to_json(error: SandboxError) -> Json:
    """Return an error as a JSON object: its code, message and facts."""
    facts = {name: getattr(error, name) for name in _facts(type(error))}
    plain: Json = _converter(lenient=False).unstructure(facts)
    return {"code": error.code, "message": error.message, **plain}


def error_from_json(data: Any) -> SandboxError:
    """Return the error that a JSON object describes, not raised.

    A code that this version does not know becomes a plain ``SandboxError``.

    Raises:
        ProtocolError: The data does not describe an error.
    """
    match data:
        case {"code": str() as code, "message": str() as message}:
            cls = ERRORS.get(code, SandboxError)
        case _:
            raise ProtocolError("what should describe an error has no code and message")
    hints = _facts(cls)
    converter = _converter(lenient=True)
    try:
        facts = {key: converter.structure(data[key], hints[key]) for key in hints if key in data}
    except Exception as error:  # noqa: BLE001 - cattrs raises what hooks and classes raise
        lines = "; ".join(_faults(error, code))
        raise ProtocolError(f"what should describe an error is damaged: {lines}") from None
    return cls(message, **facts)


def _facts(cls: type[SandboxError]) -> dict[str, Any]:
    """Return the keyword facts of an error class with their types."""
    names = {**vars(errors), "Ended": values.Ended, "Wall": values.Wall}
    hints = typing.get_type_hints(cls.__init__, globalns=names)
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}


@cache
def _converter(*, lenient: bool) -> Converter:
    # Imported on use: cattrs costs more than everything else that `import sandbox_sdk` loads.
    from cattrs import Converter
    from cattrs.cols import homogenous_tuple_structure_factory
    from cattrs.gen import make_dict_structure_fn

    converter = Converter(unstruct_collection_overrides={tuple: list})

    def structure_class(cls: Any) -> Callable[[Any, Any], Any]:
        build = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=not lenient)
        return lambda data, kind: build(_require_mapping(data), kind)

    def structure_tuple(kind: Any) -> Callable[[Any, Any], Any]:
        build = homogenous_tuple_structure_factory(kind, converter)
        return lambda data, _: build(_require_list(data), kind)

    def structure_mapping(kind: Any) -> Callable[[Any, Any], Any]:
        build = converter.gen_structure_mapping(kind)
        return lambda data, _: build(_require_mapping(data), kind)

    converter.register_structure_hook_factory(attrs.has, structure_class)
    converter.register_structure_hook_factory(_has_origin(tuple), structure_tuple)
    converter.register_structure_hook_factory(_has_origin(Mapping), structure_mapping)
    converter.register_structure_hook_func(_has_origin(Literal), _word)
    for kind, hook in _HOOKS.items():
        converter.register_structure_hook(kind, hook)
    converter.register_unstructure_hook(bytes, _base64)
    converter.register_unstructure_hook(Path, str)
    return converter


def _has_origin(origin: object) -> Callable[[Any], bool]:
    # Any: cattrs asks about types and typing's special forms alike.
    return lambda asked: get_origin(asked) is origin


def _int(data: object, _: object = None) -> int:
    if isinstance(data, int) and not isinstance(data, bool):
        return data
    raise ValueError(f"must be a whole number, not {describe(data)}")


def _float(data: object, _: object = None) -> float:
    if isinstance(data, int | float) and not isinstance(data, bool):
        with contextlib.suppress(OverflowError):  # an integer beyond any float is not one
            if math.isfinite(number := float(data)):
                return number
    raise ValueError(f"must be a finite number, not {describe(data)}")


def _str(data: object, _: object = None) -> str:
    if isinstance(data, str):
        return data
    raise ValueError(f"must be text, not {describe(data)}")


def _bool(data: object, _: object = None) -> bool:
    if isinstance(data, bool):
        return data
    raise ValueError(f"must be true or false, not {describe(data)}")


def _bytes(data: object, _: object = None) -> bytes:
    try:
        return base64.b64decode(_str(data), validate=True)
    except binascii.Error:
        raise ValueError("must be base64") from None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _path(data: object, _: object = None) -> Path:
    return Path(_str(data))


def _word(data: object, kind: Any) -> Any:
    """Return a member of a ``Literal`` or a ``StrEnum``."""
    literal = get_origin(kind) is Literal
    words = get_args(kind) if literal else tuple(member.value for member in kind)
    if data in words:
        return data if literal else kind(data)
    hint = suggestion(data, words) if isinstance(data, str) else f"; known are {', '.join(words)}"
    raise ValueError(f"no such word {describe(data)}{hint}")


_HOOKS: Mapping[type, Callable[[Any, Any], Any]] = {
    int: _int,
    float: _float,
    str: _str,
    StrEnum: _word,
    bool: _bool,
    bytes: _bytes,
    Path: _path,
}


# Any: what JSON holds is checked element by element by the hooks below these two.
def _require_mapping(data: Any) -> Mapping[str, Any]:
    if issubclass(type(data), Mapping) and all(isinstance(key, str) for key in data):
        return cast("Mapping[str, Any]", data)
    raise ValueError(f"must be a mapping of names to values, not a {type(data).__name__}")


def _require_list(data: Any) -> Sequence[Any]:
    if type(data) in (list, tuple):
        return cast("Sequence[Any]", data)
    raise ValueError(f"must be a list, not {describe(data)}")


def _faults(error: Exception, path: str) -> Iterator[str]:
    """Yield one line per fault of what cattrs raised."""
    from cattrs import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError
    from cattrs.errors import IterableValidationNote

    match error:
        case ClassValidationError() | IterableValidationError():
            noted, plain = error.group_exceptions()
            for inner, note in noted:
                step = note.index if isinstance(note, IterableValidationNote) else note.name
                yield from _faults(inner, _join(path, step))
            for inner in plain:
                yield from _faults(inner, path)
        case ForbiddenExtraKeysError():
            known = [field.name for field in attrs.fields(error.cl)]
            for key in sorted(error.extra_fields):
                yield f"{_join(path, key)}: unknown{suggestion(key, known)}"
        case KeyError():
            yield f"{path}: is required"
        case _:
            yield f"{path}: {error}" if path else str(error)


def _join(path: str, step: object) -> str:
    return f"{path}.{step}" if path else str(step)
