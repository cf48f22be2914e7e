"""What every generated class stands on: a core object, the portal to it, and argument bridges."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Generic, NoReturn, ParamSpec, Protocol, TypeVar

import anyio.to_thread

from sandbox_sdk_sync._portal import Portal

P = ParamSpec("P")
T = TypeVar("T")
Core = TypeVar("Core")
"""The async class behind a blocking one."""


class _Closable(Protocol):
    async def aclose(self) -> None: ...


ClosableCore = TypeVar("ClosableCore", bound=_Closable)


class _Enterable(Protocol):
    async def __aenter__(self) -> Any: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> Any: ...


class Twin(Generic[Core]):
    """A blocking face of one async object. Two faces of the same object are equal."""

    def __init__(self, core: Core, portal: Portal) -> None:
        self._core = core
        self._portal = portal
        self._call = portal.call

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._core is core_of(other)

    def __hash__(self) -> int:
        return hash((type(self), id(self._core)))

    def __repr__(self) -> str:
        name = type(self).__name__
        return repr(self._core).replace(f"Async{name}", name)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled: "
            "pass ids and settings, and create a client in the other process"
        )

    def _enter(self, core: _Enterable) -> None:
        """Enter an async object whose class keeps no cancel scope open between two calls."""
        try:
            self._call(core.__aenter__)
        except Exception:
            raise
        except BaseException as exc:
            # Ctrl-C may come when it has just been entered, and the block will not run.
            self._call(core.__aexit__, type(exc), exc, exc.__traceback__)
            raise


class Root(Twin[ClosableCore]):
    """A blocking object that owns the loop: what users construct and close."""

    def __init__(
        self, make: Callable[P, ClosableCore], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        async def construct() -> ClosableCore:  # on the loop, where locks find theirs
            return make(*args, **kwargs)

        portal = Portal()
        try:
            core = portal.call(construct)
        except BaseException:
            portal.close()
            raise
        portal.at_end(core.aclose)
        super().__init__(core, portal)

    def _end(
        self, close: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Run the core's own ending and then end the loop; nothing if that was done before."""
        if self._portal.closed:
            return
        try:
            self._call(close, *args, **kwargs)
        finally:
            self._portal.at_end(None)
            self._portal.close()


def core_of(value: Any) -> Any:
    """The async object behind a blocking one; anything else as it is."""
    return vars(value)["_core"] if isinstance(value, Twin) else value


def feed(value: bytes | str | Iterable[T] | AsyncIterable[T] | None) -> Any:
    """A blocking iterable as an async one, advanced on a worker thread; all else as it is."""
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview | str):
        return _advance(value)
    return value


async def _advance(items: Iterable[T]) -> AsyncIterator[T]:
    iterator = iter(items)
    end: Any = object()
    while True:
        # Abandoned when cancelled: Ctrl-C does not wait for an iterable that waits.
        item: T = await anyio.to_thread.run_sync(next, iterator, end, abandon_on_cancel=True)
        if item is end:
            return
        yield item
