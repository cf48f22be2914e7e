"""Python functions as tools: their source is shipped to the sandbox, and nothing else.

The function runs inside, alone: what it needs of its module does not come along, so a function that
uses any is refused. Nothing is pickled.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any, cast

import attrs

from sandbox_sdk.experiments import fields
from sandbox_sdk.experiments.tools.signatures import Function, parameters_of
from sandbox_sdk.parse import Faults, describe, fault

_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")
_KNOWN = frozenset(dir(builtins))
_LONGEST_NAME = 64
_FUTURE = "from __future__ import annotations\n"
# Annotations are for the model, and name types that need not be there inside.

_CALL = """
import json as _json
_value = {name}(**_json.loads({arguments!r}))
if isinstance(_value, str):
    print(_value)
elif _value is not None:
    print(_json.dumps(_value, ensure_ascii=False, default=repr))
"""


# Any: a JSON schema.
@attrs.frozen(kw_only=True)
class FunctionTool:
    """A Python function that the model may call, and that runs in the sandbox.

    Attributes:
        name: The function's name, and the tool's.
        description: What the model is told of it.
        parameters: The JSON schema of its arguments.
        source: The text of the function.
        parallel: Whether calls of it may run side by side.
    """

    name: str
    description: str = attrs.field(repr=False)
    parameters: Mapping[str, Any] = attrs.field(repr=False)
    source: str = attrs.field(repr=False)
    parallel: bool = False

    def program(self, arguments: Mapping[str, Any]) -> str:
        """Return the program that calls it and writes what it returns: text as it is, else JSON."""
        call = _CALL.format(name=self.name, arguments=json.dumps(arguments))
        return f"{_FUTURE}{self.source}\n{call}"


def read_function(value: object, path: str) -> FunctionTool:
    """Read a function tool: a Python function, or ``source`` with what else is to be said of it.

    Raises:
        ConfigError: It cannot be shipped; all faults at once.
    """
    if callable(value):
        return _tool({"source": _source_of(value, path)}, path)
    return _tool(fields.read_fields(value, path, _FUNCTION), path)


def _tool(found: Mapping[str, Any], path: str) -> FunctionTool:
    if "source" not in found:
        raise fault(f"{path}.source", "is required: the text of one Python function")
    source = textwrap.dedent(found["source"]).strip() + "\n"
    where = f"{path}.source"
    function = _only_function(source, where)
    faults = Faults()
    if found.get("name", function.name) != function.name:
        faults.add(f"{path}.name", f"must be the function's own name, {function.name!r}")
    for fact in _unshippable(function, source):
        faults.add(where, fact)
    parameters = found.get("parameters")
    if parameters is None:
        with faults.collect():
            parameters = parameters_of(function, where)
    faults.check()
    text = found.get("description") or ast.get_docstring(function) or ""
    return FunctionTool(
        name=function.name,
        description=text,
        parameters=cast("Mapping[str, Any]", parameters),
        source=source,
        parallel=found.get("parallel", False),
    )


def _source_of(function: Callable[..., object], path: str) -> str:
    if not isinstance(function, FunctionType):
        raise fault(
            path, f"must be a function written with def, not {describe(function)}; wrap it in one"
        )
    if function.__name__ == "<lambda>":
        raise fault(path, "is a lambda, which has no name; write it with def")
    if function.__closure__:
        names = ", ".join(function.__code__.co_freevars)
        raise fault(
            path,
            f"is a closure over {names}, which does not come along; pass it as an argument, or "
            "define it inside",
        )
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        raise fault(
            path, 'has no source that can be read; write it in a file, or give "source" as text'
        ) from None


def _only_function(source: str, path: str) -> Function:
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise fault(path, f"is not valid Python: {error}") from None
    match body:
        case [ast.FunctionDef() | ast.AsyncFunctionDef() as function]:
            return function
        case _:
            raise fault(path, "must be the text of exactly one function, and nothing else")


def _unshippable(function: Function, source: str) -> Iterator[str]:
    """Yield why the function would not run alone."""
    if isinstance(function, ast.AsyncFunctionDef):
        yield "is async; a tool is a plain function"
    if function.decorator_list:
        yield "has a decorator, which does not come along; leave it out"
    if len(function.name) > _LONGEST_NAME or not function.name.isascii():
        yield f"its name must be at most {_LONGEST_NAME} ASCII characters"
    for default in (*function.args.defaults, *function.args.kw_defaults):
        if default is not None and not _is_literal(default):
            yield f"the default {ast.unparse(default)} is no plain value"
    code = compile(_FUTURE + source, "<tool>", "exec", dont_inherit=True)
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    used = {name for const in inner for name in _globals(const)} - _KNOWN - {function.name}
    if used:
        yield (
            f"uses {', '.join(sorted(used))} of its module, which does not come along; import or "
            "define it inside the function"
        )


def _globals(code: CodeType) -> Iterator[str]:
    """Yield the global names that code, or code inside it, uses."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBALS:
            yield str(instruction.argval)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _globals(const)


def _is_literal(default: ast.expr) -> bool:
    try:
        ast.literal_eval(default)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return False
    return True


_FUNCTION: Mapping[str, fields.Reader] = {
    "name": fields.line,
    "description": fields.text,
    "parameters": fields.json_object,
    "source": fields.filled_text,
    "parallel": fields.flag,
}
