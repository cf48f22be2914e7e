"""Both faces of the SDK behind the async interface, by which the contract's checks call them."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
)
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
from anyio.to_thread import run_sync

from sandbox_sdk import AsyncSandboxClient, SandboxClient
from sandbox_sdk_sync._twin import Twin

_END = object()


@asynccontextmanager
async def open_async(
    state_dir: Path, settings: dict[str, object]
) -> AsyncGenerator[AsyncSandboxClient, None]:
    """Open a client of the async face."""
    async with AsyncSandboxClient(state_dir=state_dir, config=settings) as client:
        yield client


# Any, here and below: a face stands in for whichever async class its object is the twin of.
@asynccontextmanager
async def open_blocking(state_dir: Path, settings: dict[str, object]) -> AsyncGenerator[Any, None]:
    """Open a client of the blocking face, made to look like the async one."""
    opened = await run_sync(lambda: SandboxClient(state_dir=state_dir, config=settings))
    async with Face(opened) as client:
        yield client


class Face:
    """A blocking object with the interface of its async class; called on worker threads."""

    def __init__(self, blocking: Any) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._blocking, name)
        return (lambda *args, **named: Call(value, args, named)) if callable(value) else face(value)

    async def __aenter__(self) -> Any:
        return face(await run_sync(self._blocking.__enter__))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            await run_sync(self._blocking.__exit__, exc_type, exc, traceback)


class Call:
    """One call of a blocking method, made when it is awaited, iterated or entered."""

    def __init__(
        self, method: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        self._method, self._args, self._named = method, args, named
        self._entered: Any = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._make().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in await self._make():
            yield item

    async def __aenter__(self) -> Any:
        self._entered = await self._make()
        return await self._entered.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        await self._entered.__aexit__(*raised)

    async def _make(self) -> Any:
        args = [
            await _gathered(arg) if isinstance(arg, AsyncIterable) else arg for arg in self._args
        ]
        return face(await run_sync(lambda: self._method(*args, **self._named)))


def face(value: Any) -> Any:
    """Return what a blocking call or property gave as its async form would give it."""
    if isinstance(value, Iterator):
        return _items(value)
    return Face(value) if isinstance(value, Twin | AbstractContextManager) else value


async def _items(items: Iterator[Any]) -> AsyncIterator[Any]:
    while (item := await run_sync(next, items, _END)) is not _END:
        yield item


async def _gathered(value: Any) -> Any:
    return [item async for item in value] if isinstance(value, AsyncIterable) else value
