"""PID 1 of a sandbox: proves the walls, waits for the go, then serves the host until it hangs up.

It never runs guest code and opens no path that guests can shape. It cannot be traced, and being
PID 1 it cannot be killed from inside. When the channel ends it exits, and the kernel kills all
that is left in its PID namespace. At level ``low`` there is none: there it is an ordinary process,
which guests can kill, and it and the zygote kill what is left.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import socket
from typing import Any

from sandbox_sdk.agent import frames, guest, keeper, proof, sessions
from sandbox_sdk.agent.ahead import Ahead
from sandbox_sdk.agent.exchange import Exchange
from sandbox_sdk.isolation.walls import kernel, rlimits

CHANNEL = 3
"""The descriptor on which the agent finds its channel."""

_LARGEST_READ = 256 * 1024

# Guests are refused processes before the agent is: it must be able to fork what kills them.
_SPARE_PROCESSES = 16


def main() -> None:
    """Serve the channel on descriptor 3 to its end."""
    guest.close_all_but([CHANNEL])
    alone = proof.collect_alone()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    serve(alone, None)


def main_ahead(packages: list[str]) -> None:
    """Do the same, with a context forked ahead, whose socket is on descriptor 4.

    Args:
        packages: Folders with packages for Python contexts.
    """
    alone = proof.collect_alone()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    # First of all, for it gets ready while the walls are proven.
    serve(alone, Ahead(packages))


def main_plain(packages: list[str]) -> None:
    """Do the same where this is no PID 1: the end of this process is not that of all below it.

    Args:
        packages: Folders with packages for Python contexts.
    """
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGHUP, _leave)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGHUP)  # at the end of the zygote
    main_ahead(packages)
    _kill_all()


def serve(alone: dict[str, Any], ahead: Ahead | None) -> None:
    """Report what was found out, then serve."""
    channel = socket.socket(fileno=CHANNEL)
    dumpable = kernel.prctl(kernel.PR_GET_DUMPABLE, 0)
    found = {**alone, **proof.collect(), "dumpable": dumpable, "ahead": ahead is not None}
    channel.sendall(frames.delimit(frames.encode(frames.HELLO, body=json.dumps(found).encode())))
    Agent(channel, ahead).serve()


class Agent:
    """The loop of PID 1."""

    def __init__(self, channel: socket.socket, ahead: Ahead | None) -> None:
        self._channel = channel
        self._ahead = ahead
        self._splitter = frames.Splitter(frames.MAX_FRAME_IN)
        self._outgoing = bytearray()
        self._settings: guest.Settings | None = None
        self._exchanges: dict[int, Exchange] = {}
        self._sealer = 0  # the process that seals the channel
        self._sessions = sessions.Sessions()
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, int] = {}
        wake, wake_end = os.pipe()
        for descriptor in (wake, wake_end):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, _noticed)
        # Of what guests send, PID 1 gets only what it has a handler for: Python's would end it.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        self._wake = wake
        channel.setblocking(False)

    def serve(self) -> None:
        """Serve until the host hangs up or breaks the protocol."""
        self._watch(self._wake, selectors.EVENT_READ, None)
        self._reap()  # what ended before its end could be noticed
        while True:
            writing = selectors.EVENT_WRITE if self._outgoing else 0
            self._watch(self._channel.fileno(), selectors.EVENT_READ | writing, None)
            for key, mask in self._selector.select():
                if key.fd == self._wake:
                    self._reap()
                elif key.fd != self._channel.fileno():
                    if key.data.number in self._exchanges:  # not ended earlier in this round
                        self._serve_exchange(key.data)
                elif mask & selectors.EVENT_READ and not self._receive():
                    return
            self._flush()

    def _receive(self) -> bool:
        """Handle what the host sent; return whether it is still there."""
        try:
            data = self._channel.recv(_LARGEST_READ)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if not data:
            return False
        found = self._splitter.feed(data)
        for number, frame in enumerate(found, 1):
            decoded = frames.decode(frame)
            if decoded.kind == frames.SEAL:
                self._seal(json.loads(decoded.body), found[number:])
                break
            self._take(decoded)
        return True

    def _take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.RELAY:
            inner = sessions.unwrap(frame)
            known = inner.kind == frames.OPEN or inner.exchange in self._exchanges
            if known and self._sessions.took(inner):
                self._send(frames.BUSY, frame.exchange, body=frames.encode_number(1))
            self._handle(inner)
        elif frame.kind in (frames.HOLD, frames.FLOW):
            held = frame.kind == frames.HOLD
            (self._sessions.held.add if held else self._sessions.held.discard)(frame.exchange)
            for exchange in self._of_session(frame.exchange):
                exchange.hold(held)
                self._serve_exchange(exchange)
        elif frame.kind == frames.DETACH:
            self._sessions.held.discard(frame.exchange)
            for exchange in self._of_session(frame.exchange):
                exchange.hold(True)  # nobody is left to read
                exchange.kill()
                self._serve_exchange(exchange)
        else:
            self._handle(frame)

    def _of_session(self, session: int) -> list[Exchange]:
        return [
            each for each in self._exchanges.values() if sessions.session_of(each.number) == session
        ]

    def _handle(self, frame: frames.Frame) -> None:
        if frame.kind == frames.GO:
            self._go(json.loads(frame.body))
        elif frame.kind == frames.OPEN:
            self._open(frame.exchange, json.loads(frame.body))
        elif frame.kind == frames.VARIABLES:
            self._add_variables(json.loads(frame.body))
        elif frame.kind == frames.ADOPT:
            self._adopt(frame.exchange)
        elif self._ahead is not None and frame.exchange == self._ahead.number:
            if frame.kind == frames.SIGNAL:
                self._ahead.signal(frames.decode_number(frame.body))
            elif frame.kind == frames.KILL:
                others = [each.child for each in self._exchanges.values()]
                self._ahead.kill([*others, self._sealer])
        elif exchange := self._exchanges.get(frame.exchange):
            if frame.kind == frames.DATA:
                exchange.take_input(frame.body)
            elif frame.kind == frames.EOF:
                exchange.input_over = True
            elif frame.kind == frames.CREDIT:
                exchange.outputs[frame.stream].give(frames.decode_number(frame.body))
            elif frame.kind == frames.SIGNAL:
                exchange.signal(frames.decode_number(frame.body))
            elif frame.kind == frames.RESIZE:
                exchange.resize(*frames.decode_size(frame.body))
            elif frame.kind == frames.KILL:
                exchange.kill()
            self._serve_exchange(exchange)

    def _go(self, said: dict[str, Any]) -> None:
        self._settings = guest.Settings(**said)
        gc.freeze()  # forked children then leave the agent's objects, and their pages, alone
        own = dict(self._settings.rlimits)
        if "nproc" in own:
            own["nproc"] += _SPARE_PROCESSES
        # Lowered for good before any guest exists; data and file size are the guests' alone.
        rlimits.apply({name: own[name] for name in ("nproc", "core", "memlock") if name in own})

    def _add_variables(self, said: dict[str, str]) -> None:
        if self._settings is None:
            raise ValueError("told of variables before the go")
        self._settings = self._settings._replace(env={**self._settings.env, **said})

    def _open(self, number: int, request: dict[str, Any]) -> None:
        if self._settings is None:
            raise ValueError("asked to run something before the go")
        try:
            exchange = Exchange(number, request, self._settings, self._unwatch)
        except OSError as error:
            # Out of processes or descriptors: nothing of it ran.
            self._end(number, {"refused": error.errno, "message": error.strerror})
            return
        self._exchanges[number] = exchange
        exchange.hold(sessions.session_of(number) in self._sessions.held)
        self._serve_exchange(exchange)

    def _seal(self, said: dict[str, Any], following: list[bytes]) -> None:
        """Give the channel to a process that seals it, and speak to that one from now on.

        The keys never come to be in this process, of which every guest is a fork.

        Args:
            said: Whom to seal it for.
            following: Frames that came behind, which are for that process.
        """
        # Imported on use: it brings OpenSSL along, which most sandboxes have no need of.
        from sandbox_sdk.agent import sealer

        if self._settings is None or self._sealer or self._outgoing:
            raise ValueError("asked to seal the channel at the wrong moment")
        self._unwatch(self._channel.fileno())
        began = b"".join(map(frames.delimit, following)) + self._splitter.rest
        self._splitter = frames.Splitter(frames.MAX_FRAME_IN)
        self._channel, self._sealer = sealer.start(self._channel, said, began)
        self._channel.setblocking(False)

    def _adopt(self, number: int) -> None:
        if self._ahead is None:
            raise ValueError("there is no context that was forked ahead")
        self._ahead.number = number
        self._end_ahead()

    def _end_ahead(self) -> None:
        """Tell how the context that was forked ahead ended, once it did and was asked for."""
        if self._ahead is not None and self._ahead.finished:
            self._end(self._ahead.number, self._ahead.ended or {})
            self._ahead = None

    def _serve_exchange(self, exchange: Exchange) -> None:
        """Move what can be moved now, in the order that keeps results behind their output."""
        exchange.read_report()
        if give := exchange.push_input():
            self._send(frames.CREDIT, exchange.number, frames.STDIN, frames.encode_number(give))
        # The result is read first and sent last: what the program wrote before it is then
        # already in the other pipes.
        if not exchange.held:
            exchange.held = exchange.pull(frames.RESULT)
        drained = [self._forward(exchange, frames.STDOUT), self._forward(exchange, frames.STDERR)]
        if all(drained):
            for data in exchange.held:
                self._send(frames.DATA, exchange.number, frames.RESULT, data)
            exchange.held = []
        if exchange.finished:
            exchange.close()
            del self._exchanges[exchange.number]
            self._end(exchange.number, exchange.ended or {})
        else:
            self._watch_exchange(exchange)

    def _forward(self, exchange: Exchange, stream: int) -> bool:
        """Send what a stream holds; return whether nothing was left for want of credit."""
        was_open = exchange.outputs[stream].descriptor >= 0
        for data in exchange.pull(stream):
            self._send(frames.DATA, exchange.number, stream, data)
        if was_open and exchange.outputs[stream].descriptor < 0:
            self._send(frames.EOF, exchange.number, stream)
        return exchange.drained(stream)

    def _watch_exchange(self, exchange: Exchange) -> None:
        """Wait for just what can make progress; a pipe without credit is left alone."""
        if exchange.report >= 0:
            running = exchange.ended is None
            self._watch(exchange.report, selectors.EVENT_READ if running else 0, exchange)
        for stream, output in exchange.outputs.items():
            if output.descriptor >= 0:
                wanted = selectors.EVENT_READ if exchange.takes(stream) else 0
                self._watch(output.descriptor, wanted, exchange)
        if exchange.stdin >= 0:
            wanted = selectors.EVENT_WRITE if exchange.has_input else 0
            self._watch(exchange.stdin, wanted, exchange)

    def _reap(self) -> None:
        """Collect every dead child: our own, and orphans that came to us as PID 1."""
        try:
            while os.read(self._wake, 4096):
                continue
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._ahead is not None and self._ahead.child_ended(
                pid, status, usage.ru_utime + usage.ru_stime
            ):
                self._end_ahead()
                continue
            for exchange in list(self._exchanges.values()):
                if exchange.child == pid:
                    exchange.child_ended(status)
                    self._serve_exchange(exchange)

    def _end(self, number: int, how: dict[str, Any]) -> None:
        self._send(frames.END, number, body=json.dumps(how).encode())

    def _send(self, kind: int, exchange: int, stream: int = 0, body: bytes = b"") -> None:
        self._outgoing += frames.delimit(sessions.wrap(kind, exchange, stream, body))
        if self._sessions.sent(kind, exchange, stream):
            idle = frames.encode_number(0)
            self._send(frames.BUSY, sessions.session_of(exchange), body=idle)

    def _flush(self) -> None:
        try:
            while self._outgoing:
                sent = self._channel.send(self._outgoing[: frames.MAX_FRAME])
                del self._outgoing[:sent]
        except BlockingIOError:
            return

    def _watch(self, descriptor: int, events: int, data: Exchange | None) -> None:
        if self._watched.get(descriptor, 0) == events:
            return
        self._unwatch(descriptor)
        if events:
            self._selector.register(descriptor, events, data)
            self._watched[descriptor] = events

    def _unwatch(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, 0):
            self._selector.unregister(descriptor)


def _leave(number: int, frame: object) -> None:
    """End this sandbox, for nobody is left who would."""
    _kill_all()
    os._exit(0)


def _kill_all() -> None:
    keeper.kill_below(os.getpid())


def _noticed(number: int, frame: object) -> None:
    """Do nothing: a signal with a handler is written to the wake-up descriptor."""
