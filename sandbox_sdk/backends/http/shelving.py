"""Bytes that come from elsewhere, piece by piece, kept on a shelf whose work blocks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import anyio
import attrs
from anyio import from_thread
from anyio.streams.memory import MemoryObjectReceiveStream
from anyio.to_thread import run_sync

from sandbox_sdk.values import Shelf


async def keep(shelf: Shelf, source: AsyncGenerator[bytes]) -> tuple[str, int]:
    """Keep what comes; of what ends in an error nothing stays.

    Returns:
        Its SHA-256, and how many bytes it has.

    Raises:
        OSError: The shelf cannot be written.
        Exception: What the source raises.
    """
    send, receive = anyio.create_memory_object_stream[bytes](0)
    keeping = _Keeping(receive)
    async with anyio.create_task_group() as group:
        group.start_soon(keeping.run, shelf)
        try:
            async with aclosing(source):
                async for data in source:
                    await send.send(data)
        except anyio.BrokenResourceError:
            pass  # the shelf failed, and tells why
        except Exception as error:  # noqa: BLE001 - raised when the shelf has let go
            keeping.failure = error
        except BaseException:
            keeping.is_cut = True
            raise
        finally:
            send.close()
    if keeping.failure is not None:
        raise keeping.failure
    return keeping.kept


@attrs.define
class _Keeping:
    """The thread that keeps; it is asked for nothing before the group has ended."""

    receive: MemoryObjectReceiveStream[bytes]
    kept: tuple[str, int] = ("", 0)
    failure: Exception | None = None
    is_cut: bool = False

    async def run(self, shelf: Shelf) -> None:
        try:
            self.kept = await run_sync(shelf.keep, self._pieces())
        except _Cut:
            pass  # the source failed, and told why
        except Exception as error:  # noqa: BLE001 - raised by who waits for the group
            self.failure = error
        finally:
            self.receive.close()

    def _pieces(self) -> Iterator[bytes]:
        while True:
            try:
                yield from_thread.run(self.receive.receive)
            except anyio.EndOfStream:
                break
        if self.is_cut or self.failure is not None:
            raise _Cut


class _Cut(Exception):
    """What came is not all."""
