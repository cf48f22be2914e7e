"""The table of all routes: the server is built from it, and so is its OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import attrs

from sandbox_sdk.backends.base import LimitHits, Standing
from sandbox_sdk.backends.protocol import (
    Asked,
    Caller,
    HowEnded,
    Page,
    Pinned,
    SessionPage,
    Stopping,
    Usages,
    Wanted,
)
from sandbox_sdk.server import channel, handlers, sessions, streams
from sandbox_sdk.server.calls import READ, WRITE, Call
from sandbox_sdk.values import SandboxInfo, SandboxSpec


@attrs.frozen(kw_only=True)
class Parameter:
    """A parameter of a query.

    Attributes:
        name: Its name.
        kind: Its JSON type.
        text: What it says.
    """

    name: str
    kind: Literal["string", "number", "integer", "boolean"]
    text: str


@attrs.frozen(kw_only=True)
class Route:
    """One route.

    Attributes:
        name: Its stable name.
        method: The HTTP method.
        path: The path, with ``{id}`` for what it is about.
        text: What it does, in a sentence.
        scope: What its caller must be allowed to do; empty is nothing but to be known.
        handler: Does it; returns a value, nothing, or a response of its own.
        body: The class of what is sent.
        answer: The class of what comes back; ``None`` is nothing, or bytes where it streams.
        streams: Whether what comes back is bytes.
        is_new: Whether it makes something.
        has_effect: Whether it changes something, by ``Idempotency-Key`` at most once.
        query: Its parameters.
        about: What ``{id}`` is the id of.
    """

    name: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    text: str
    scope: str
    # Any: what each handler returns is described by ``answer``.
    handler: Callable[[Call], Awaitable[Any]]
    body: type | None = None
    answer: type | None = None
    streams: bool = False
    is_new: bool = False
    has_effect: bool = False
    query: tuple[Parameter, ...] = ()
    about: str = "The sandbox."

    @property
    def status(self) -> int:
        """The status of its success."""
        if self.handler is channel.serve:
            return 101
        if self.is_new:
            return 201
        return 200 if self.answer is not None or self.streams else 204


ROUTES = (
    Route(
        name="whoami",
        method="GET",
        path="/v1/whoami",
        text="Say who calls, and what they may do.",
        scope="",
        handler=handlers.whoami,
        answer=Caller,
    ),
    Route(
        name="sessions",
        method="GET",
        path="/v1/sessions",
        text="List one's own sessions, or the tenant's for who may see them, oldest first.",
        scope="",
        handler=sessions.list_,
        answer=SessionPage,
        query=(
            Parameter(name="limit", kind="integer", text="Most of a page, 1 to 1000."),
            Parameter(name="after", kind="string", text="The former page's next."),
        ),
    ),
    Route(
        name="revoke_session",
        method="DELETE",
        path="/v1/sessions/{id}",
        text="End a session: its tokens are refused from now on.",
        scope="",
        handler=sessions.revoke,
        about="The session.",
    ),
    Route(
        name="pin",
        method="POST",
        path="/v1/specs/pin",
        text="Check a spec, and name its template by what its name means now.",
        scope=READ,
        handler=handlers.pin,
        body=SandboxSpec,
        answer=Pinned,
    ),
    Route(
        name="create",
        method="POST",
        path="/v1/sandboxes",
        text="Record a sandbox; it starts when it is told to.",
        scope=WRITE,
        handler=handlers.create,
        body=SandboxSpec,
        answer=SandboxInfo,
        is_new=True,
        has_effect=True,
    ),
    Route(
        name="list",
        method="GET",
        path="/v1/sandboxes",
        text="List sandboxes, oldest first, a page at a time.",
        scope=READ,
        handler=handlers.list_,
        answer=Page,
        query=(
            Parameter(name="limit", kind="integer", text="Most of a page, 1 to 1000."),
            Parameter(name="after", kind="string", text="The former page's next."),
            Parameter(name="internal", kind="boolean", text="Also those of trials."),
        ),
    ),
    Route(
        name="get",
        method="GET",
        path="/v1/sandboxes/{id}",
        text="Return a sandbox's record.",
        scope=READ,
        handler=handlers.find,
        answer=SandboxInfo,
    ),
    Route(
        name="start",
        method="POST",
        path="/v1/sandboxes/{id}/start",
        text="Set a sandbox up, or say what holds if it runs.",
        scope=WRITE,
        handler=handlers.start,
        has_effect=True,
        answer=Standing,
    ),
    Route(
        name="stop",
        method="POST",
        path="/v1/sandboxes/{id}/stop",
        text="End a sandbox; its workspace stays.",
        scope=WRITE,
        handler=handlers.stop,
        has_effect=True,
        body=Stopping,
        answer=SandboxInfo,
    ),
    Route(
        name="delete",
        method="DELETE",
        path="/v1/sandboxes/{id}",
        text="End a sandbox and remove all that is kept of it.",
        scope=WRITE,
        handler=handlers.delete,
    ),
    Route(
        name="usage",
        method="POST",
        path="/v1/usage",
        text="Return what sandboxes use now.",
        scope=READ,
        handler=handlers.usage,
        body=Asked,
        answer=Usages,
    ),
    Route(
        name="limit_hits",
        method="GET",
        path="/v1/sandboxes/{id}/limit_hits",
        text="Return what the kernel counted against a sandbox's limits.",
        scope=READ,
        handler=handlers.limit_hits,
        answer=LimitHits,
    ),
    Route(
        name="ended",
        method="GET",
        path="/v1/sandboxes/{id}/ended",
        text="Return how a sandbox ended, waiting for it for a while.",
        scope=READ,
        handler=handlers.ended,
        answer=HowEnded,
        query=(Parameter(name="wait", kind="number", text="Longest wait in seconds, to 60."),),
    ),
    Route(
        name="read_file",
        method="GET",
        path="/v1/sandboxes/{id}/file",
        text="Return a file of a workspace; no link is followed.",
        scope=READ,
        handler=streams.read_file,
        streams=True,
        query=(Parameter(name="path", kind="string", text="The file."),),
    ),
    Route(
        name="collect",
        method="POST",
        path="/v1/sandboxes/{id}/collect",
        text="Return the files of a workspace that match, each digest's bytes once.",
        scope=READ,
        handler=streams.collect,
        body=Wanted,
        streams=True,
    ),
    Route(
        name="channel",
        method="GET",
        path="/v1/sandboxes/{id}/channel",
        text="Become a WebSocket that carries frames to the sandbox's agent and back.",
        scope=WRITE,
        handler=channel.serve,
        query=(
            Parameter(name="session", kind="string", text="32 hexadecimal digits of the client."),
            Parameter(name="received", kind="integer", text="How many frames of it came so far."),
        ),
    ),
)
"""Every route of a caller; besides them there are ``/healthz``, ``/readyz`` and the document."""
