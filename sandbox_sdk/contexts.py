"""Python contexts of a sandbox: one process each, for one call or kept from call to call."""

from __future__ import annotations

import time

import anyio
import attrs

from sandbox_sdk.backends.exchanges import Exchange
from sandbox_sdk.calls import Collector, code_result, piece, wait
from sandbox_sdk.link import Link
from sandbox_sdk.values import CodeResult, Ended, EndKind

_PYTHON = {"kind": "python"}


class _Switch:
    """A sink that hands output to the collector of the call that runs now."""

    def __init__(self) -> None:
        self.collector: Collector | None = None

    def take(self, stream: int, data: bytes) -> int:
        return self.collector.take(stream, data) if self.collector else len(data)

    def end(self, stream: int) -> None:
        if self.collector:
            self.collector.end(stream)


class Context:
    """One kept context. A context that was killed or exited begins anew at the next call."""

    def __init__(self) -> None:
        self._one_at_a_time = anyio.Lock(fast_acquire=True)
        self._switch = _Switch()
        self._link: Link | None = None
        self._exchange: Exchange | None = None

    async def run(self, link: Link, code: str, *, timeout: float | None) -> CodeResult:
        """Run code after what runs in this context now.

        Raises:
            SandboxEnded: The sandbox has ended before.
            ProtocolError: What the context answered is no result; the context was ended.
        """
        async with self._one_at_a_time:
            began = time.monotonic()
            if self._exchange is None or self._exchange.over.is_set() or self._link is not link:
                self._switch = _Switch()
                self._exchange = await link.start(_PYTHON, self._switch)
                self._link = link
            else:
                await link.begin(self._exchange)
            collector = Collector(link.resources.output_bytes, until_answer=True)
            self._switch.collector = collector
            try:
                call = _Call(link, self._exchange, collector, began, timeout)
                return await call.run(code, more=True)
            finally:
                self._switch.collector = None


async def run_fresh(link: Link, code: str, *, timeout: float | None) -> CodeResult:
    """Run code in a context of its own, which ends with it.

    Raises:
        SandboxEnded: The sandbox has ended before.
        ProtocolError: What the context answered is no result.
    """
    began = time.monotonic()
    collector = Collector(link.resources.output_bytes, until_answer=True)
    exchange = await link.start(_PYTHON, collector)
    try:
        return await _Call(link, exchange, collector, began, timeout).run(code, more=False)
    finally:
        await link.leave(exchange)


@attrs.frozen
class _Call:
    """One piece of code that runs in a context."""

    link: Link
    exchange: Exchange
    collector: Collector
    began: float
    timeout: float | None

    async def run(self, code: str, *, more: bool) -> CodeResult:
        """Run it until it has answered, or the context has ended.

        Args:
            code: The piece.
            more: Whether the context may be given another.
        """
        exchange, collector = self.exchange, self.collector
        try:
            verdict = await wait(
                self.link, exchange, collector, stdin=piece(code), timeout=self.timeout, more=more
            )
            answer = collector.answer()
            if verdict is None and answer is not None and answer.exit is not None:
                verdict = await self._wait_exit()
        except BaseException:
            await self.link.kill(exchange)
            raise
        finally:
            exchange.busy = False
        if exchange.over.is_set() or verdict is not None:
            ended = await self.link.judge(exchange, verdict)
        else:
            ended = Ended(kind=EndKind.OK, exit_code=0)
        return code_result(collector, ended, self.began)

    async def _wait_exit(self) -> Ended | None:
        """Wait for a context that said it exits, which is only its word, within the call's time."""
        timeout = self.timeout
        left = None if timeout is None else max(0.0, self.began + timeout - time.monotonic())
        with anyio.move_on_after(left):
            await self.exchange.over.wait()
        if self.exchange.over.is_set():
            return None
        await self.link.kill(self.exchange)
        return Ended(kind=EndKind.TIMEOUT, limit="timeout", limit_value=timeout)
