"""The two faces agree: every async class has its blocking twin, with the same calls and words."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import sandbox_sdk
import sandbox_sdk_sync
from sandbox_sdk_sync import _generate
from sandbox_sdk_sync._twin import Root, Twin


def _async_classes() -> dict[str, type]:
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(sandbox_sdk.__path__, "sandbox_sdk."):
        for name, value in vars(importlib.import_module(module.name)).items():
            own = inspect.isclass(value) and value.__module__ == module.name
            if own and name.startswith("Async"):
                found[name] = value
    return found


ASYNC = _async_classes()
PAIRS = [(core, getattr(sandbox_sdk_sync, name[5:], None)) for name, core in ASYNC.items()]


def _public(cls: type) -> dict[str, object]:
    return {name: value for name, value in vars(cls).items() if not name.startswith("_")}


def _method(value: object) -> object:
    return value.fget if isinstance(value, property) else inspect.unwrap(value)  # type: ignore[arg-type]


def _words(text: str | None) -> list[str]:
    """The words of a docstring without those that only the async face needs."""
    assert text
    text = re.sub(r"\b(async|await) ", "", text)
    text = re.sub(r"\bAsync(?=[A-Z])", "", text).replace("aclose", "close")
    return text.split()


def test_the_documented_classes_have_both_faces() -> None:
    documented = {"SandboxClient", "Sandbox", "SDKOrchestrator"}
    assert {f"Async{name}" for name in documented} <= ASYNC.keys()
    assert documented <= set(sandbox_sdk_sync.__all__)


@pytest.mark.parametrize(("core", "twin"), PAIRS, ids=ASYNC)
def test_a_twin_has_the_same_members(core: type, twin: type | None) -> None:
    assert twin is not None
    assert issubclass(twin, Twin)
    expected = {"close" if name == "aclose" else name for name in _public(core)}
    assert set(_public(twin)) == expected
    assert hasattr(twin, "__enter__") == hasattr(core, "__aenter__")
    assert hasattr(twin, "__exit__") == hasattr(core, "__aexit__")


@pytest.mark.parametrize(("core", "twin"), PAIRS, ids=ASYNC)
def test_members_take_the_same_parameters_and_say_the_same(core: type, twin: type) -> None:
    assert _words(core.__doc__) == _words(twin.__doc__)
    for name, value in _public(core).items():
        other = _public(twin)["close" if name == "aclose" else name]
        assert isinstance(value, property) == isinstance(other, property)
        asynchronous, blocking = _method(value), _method(other)
        assert _words(asynchronous.__doc__) == _words(blocking.__doc__)
        expected = inspect.signature(asynchronous)  # type: ignore[arg-type]
        actual = inspect.signature(blocking)  # type: ignore[arg-type]
        assert [(p.name, p.kind, p.default) for p in actual.parameters.values()] == [
            (p.name, p.kind, p.default) for p in expected.parameters.values()
        ]
        assert not inspect.iscoroutinefunction(blocking)
        assert "Async" not in str(actual.return_annotation)


@pytest.mark.parametrize(("core", "twin"), PAIRS, ids=ASYNC)
def test_a_root_is_made_with_the_same_parameters(core: type, twin: type) -> None:
    if issubclass(twin, Root):
        expected = inspect.signature(core).parameters.values()
        actual = inspect.signature(twin).parameters.values()
        assert [(p.name, p.kind, p.default) for p in actual] == [
            (p.name, p.kind, p.default) for p in expected
        ]
    else:
        assert "__init__" not in vars(twin)


@pytest.mark.parametrize("core", ASYNC.values(), ids=ASYNC)
def test_only_properties_of_async_classes_are_synchronous(core: type) -> None:
    for name, value in _public(core).items():
        if isinstance(value, property):
            continue
        bridged = inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(
            inspect.unwrap(value)  # type: ignore[arg-type]
        )
        assert bridged, f"{core.__name__}.{name} is synchronous"


def test_the_committed_twin_is_what_the_generator_writes() -> None:
    assert _generate.main(["--check"]) == 0


def test_every_public_name_can_be_imported() -> None:
    for name in sandbox_sdk.__all__:
        value = getattr(sandbox_sdk, name)
        assert value.__name__ == name
        assert name in dir(sandbox_sdk)
    with pytest.raises(AttributeError, match="no attribute 'SandboxClint'"):
        sandbox_sdk.SandboxClint  # noqa: B018


def test_both_faces_are_public() -> None:
    assert ASYNC.keys() <= set(sandbox_sdk.__all__)
    assert set(sandbox_sdk_sync.__all__) <= set(sandbox_sdk.__all__)


def test_checkers_are_told_of_exactly_the_public_names() -> None:
    assert sandbox_sdk.__file__
    tree = ast.parse(Path(sandbox_sdk.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = [a.name for node in block.body if isinstance(node, ast.ImportFrom) for a in node.names]
    assert sorted(told) == sorted(sandbox_sdk.__all__)


def test_every_error_is_public() -> None:
    from sandbox_sdk import errors

    classes = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert classes <= set(sandbox_sdk.__all__)
