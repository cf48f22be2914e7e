"""Running something inside to its end: output kept within a bound, time kept by the host."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import anyio
import attrs

from sandbox_sdk import answers
from sandbox_sdk.agent import frames
from sandbox_sdk.backends.exchanges import Exchange
from sandbox_sdk.link import Link
from sandbox_sdk.values import CodeResult, CommandResult, Ended, EndKind


class Collector:
    """A sink that keeps output up to a bound and counts the rest.

    Attributes:
        done: Set at the end of the exchange or of an answer, or once the bound is passed.
        full: Whether the bound was passed.
        seen: Output bytes that came.
        kept: Output bytes kept.
    """

    def __init__(self, most: int, *, until_answer: bool) -> None:
        self.done = anyio.Event()
        self.full = False
        self.seen = 0
        self.kept = 0
        self._most = most
        self._until_answer = until_answer
        self._bytes = {stream: bytearray() for stream in (frames.STDOUT, frames.STDERR)}
        self._reader = answers.Reader()

    def take(self, stream: int, data: bytes) -> int:
        """Keep what fits; all of it is done with at once."""
        if stream == frames.RESULT:
            if self._reader.feed(data) and (self._until_answer or self.overlong):
                self.done.set()
            return len(data)
        self.seen += len(data)
        fits = data[: self._most - self.kept]
        self.kept += len(fits)
        self._bytes[stream] += fits
        if len(fits) < len(data) and not self.full:
            self.full = True
            self.done.set()
        return len(data)

    def end(self, stream: int) -> None:
        """Note the end of a stream; the result's end is the exchange's."""
        if stream == frames.RESULT:
            self.done.set()

    @property
    def stdout(self) -> bytes:
        """What was kept of standard output."""
        return bytes(self._bytes[frames.STDOUT])

    @property
    def stderr(self) -> bytes:
        """What was kept of standard error."""
        return bytes(self._bytes[frames.STDERR])

    @property
    def overlong(self) -> bool:
        """Whether the answer is longer than any may be."""
        return self._reader.overlong

    def answer(self) -> answers.Answer | None:
        """Return what a Python context answered, or ``None`` if it did not.

        Raises:
            ProtocolError: It is too long, or not of the agreed shape.
        """
        return self._reader.answer()

    def measured(self, ended: Ended) -> Ended:
        """Return ``ended`` with the counts of output."""
        return attrs.evolve(
            ended,
            truncated=self.seen > self.kept,
            bytes_seen=self.seen,
            bytes_kept=self.kept,
        )


async def wait(
    link: Link,
    exchange: Exchange,
    collector: Collector,
    *,
    stdin: bytes,
    timeout: float | None,
    more: bool = False,
) -> Ended | None:
    """Wait for the collector to be done, within the call's time; kill what runs on.

    Args:
        link: The connection.
        exchange: What runs.
        collector: Its sink.
        stdin: What it reads.
        timeout: Seconds; ``None`` is no bound.
        more: Whether it may be given more to read later.

    Returns:
        The host's verdict, or ``None`` if the program ended by itself.
    """
    verdict: Ended | None = None
    try:
        # Without a bound there is no need for a scope, which would cost a fifth of a short call.
        with anyio.move_on_after(timeout) if timeout is not None else nullcontext() as clock:
            if len(stdin) <= frames.WINDOW:  # the credit every stream begins with: no waiting
                await _feed(exchange, stdin, more)
                await collector.done.wait()
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(_feed, exchange, stdin, more)
                    await collector.done.wait()
                    group.cancel_scope.cancel()
        if clock is not None and clock.cancelled_caught and not exchange.over.is_set():
            verdict = Ended(kind=EndKind.TIMEOUT, limit="timeout", limit_value=timeout)
        elif collector.full:
            most = link.resources.output_bytes
            verdict = Ended(kind=EndKind.OUTPUT_LIMIT, limit="output", limit_value=most)
    except BaseException:  # cancelled by the caller: what runs inside must not stay
        await link.kill(exchange)
        raise
    if verdict is not None:
        await link.kill(exchange)
    return verdict


async def run_command(
    link: Link, request: Mapping[str, Any], *, stdin: bytes, timeout: float | None
) -> CommandResult:
    """Run a command to its end.

    Raises:
        SandboxEnded: The sandbox has ended before.
    """
    began = time.monotonic()
    collector = Collector(link.resources.output_bytes, until_answer=False)
    with link.watching("command", request["argv"]) as watched:
        # That nothing will come to be read is told with the request, not in a frame of its own.
        asked = {"kind": "command", **request, **({} if stdin else {"input": False})}
        exchange = await link.start(asked, collector)
        verdict = await wait(
            link, exchange, collector, stdin=stdin, timeout=timeout, more=not stdin
        )
        ended = collector.measured(await link.judge(exchange, verdict))
        watched.finished(ended)
    return CommandResult(
        ended=ended,
        stdout_bytes=collector.stdout,
        stderr_bytes=collector.stderr,
        duration=time.monotonic() - began,
    )


def as_code(done: CommandResult) -> CodeResult:
    """Return what a shell script did as the result of code."""
    return CodeResult(
        ended=done.ended, stdout=done.stdout, stderr=done.stderr, duration=done.duration
    )


def piece(code: str) -> bytes:
    """Return code as a Python context reads it."""
    return json.dumps({"code": code}).encode() + b"\n"


def code_result(collector: Collector, ended: Ended, began: float) -> CodeResult:
    """Return the result of code from its answer and the end that the host found.

    Raises:
        ProtocolError: The answer is no result.
    """
    answer = None
    if ended.kind in (EndKind.OK, EndKind.NONZERO) or collector.overlong:
        answer = collector.answer()
    if answer is None:
        answer = answers.Answer()
    if answer.error is not None:
        ended = attrs.evolve(ended, kind=EndKind.NONZERO, exit_code=1)
    return CodeResult(
        ended=collector.measured(ended),
        stdout=collector.stdout.decode("utf-8", "replace"),
        stderr=collector.stderr.decode("utf-8", "replace"),
        results=answer.results,
        omitted=answer.omitted,
        error=answer.error,
        duration=time.monotonic() - began,
    )


async def _feed(exchange: Exchange, data: bytes, more: bool) -> None:
    try:
        await exchange.send(data)
        if not more:
            await exchange.send_eof()
    except ConnectionError:
        return  # the end of the exchange tells
