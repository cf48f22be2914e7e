"""What client and server of a remote backend agree on: version, headers, bodies, frames' envelope.

The control plane is JSON over HTTP below ``/v1``. The data plane is one WebSocket per client and
sandbox: a binary message is one frame, which the server passes on unread; a text message is one
JSON object between client and server themselves:

    {"received": n, "resumed": bool}      server, first: how many frames of this session it has
    {"ack": n}                            both: how many frames of the other came so far
    {"ask": k}                            client: what did the kernel count?
    {"answer": k, "limit_hits": {...}}    server
    {"renew": true}                       server: the credentials end soon
    {"renew": "Bearer ..."}               client: newer ones, of the same caller

Frames are numbered by counting. Either side keeps those it sent until the other has them, so that
after a lost connection only what never came is sent again.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from sandbox_sdk.agent import frames
from sandbox_sdk.auth.records import SessionInfo
from sandbox_sdk.values import Artifact, Ended, SandboxInfo, SandboxSpec, SandboxState, Usage

VERSION = "1"
"""The version of the protocol; others are refused."""

VERSION_HEADER = "Sandbox-Protocol"
KEY_HEADER = "Idempotency-Key"
REQUEST_HEADER = "X-Request-Id"
PROBLEM_TYPE = "application/problem+json"

LONGEST_FRAME = frames.MAX_FRAME
"""Longest binary message in bytes, either way."""

ACK_FRAMES = 64
"""How many frames come before they are acknowledged, at most."""

ACK_BYTES = 128 * 1024
"""How many bytes come before they are acknowledged, at most."""

MOST_UNACKNOWLEDGED = 1024 * 1024
"""Bytes that a side keeps for the other before it takes no more to send."""

CLOSE_ENDED = 4000
"""Closes the WebSocket: the sandbox has ended."""

CLOSE_LOST = 4001
"""Closes the WebSocket: the server knows the session no more."""

CLOSE_EXPIRED = 4002
"""Closes the WebSocket: the caller's credentials are no longer good."""

CLOSE_REPLACED = 4003
"""Closes the WebSocket: the session went on over another one."""


@attrs.frozen(kw_only=True)
class Caller:
    """Who a server says calls it.

    Attributes:
        tenant: Whose sandboxes they see.
        subject: Who it is within the tenant.
        method: How that was proven.
        scopes: What they may do.
        expires_at: When that ends, in seconds since the epoch; ``None`` is never.
        server: The server's version of the SDK.
        worker: The public key of the worker that vouches for the server's sandboxes, as a line of
            an SSH public key file; empty if it seals no channels.
    """

    tenant: str
    subject: str
    method: str
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None
    server: str = ""
    worker: str = ""


@attrs.frozen(kw_only=True)
class Page:
    """Some records, oldest first.

    Attributes:
        sandboxes: The records.
        next: Where the next page begins; ``None`` is the end.
    """

    sandboxes: tuple[SandboxInfo, ...] = ()
    next: str | None = None


@attrs.frozen(kw_only=True)
class SessionPage:
    """Some sessions, oldest first.

    Attributes:
        sessions: What is known of each; no token is.
        next: Where the next page begins; ``None`` is the end.
    """

    sessions: tuple[SessionInfo, ...] = ()
    next: str | None = None


@attrs.frozen(kw_only=True)
class Stopping:
    """The body of a stop.

    Attributes:
        why: How it ended then, if it was not its user's wish.
    """

    why: Ended | None = None


@attrs.frozen(kw_only=True)
class Asked:
    """The body of a question about usage.

    Attributes:
        ids: The sandboxes, at most 1,000.
    """

    ids: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Usages:
    """What sandboxes use, in the order asked.

    Attributes:
        usage: One entry each.
    """

    usage: tuple[Usage, ...] = ()


@attrs.frozen(kw_only=True)
class HowEnded:
    """Whether and how a sandbox ended.

    Attributes:
        state: Where it is in its life.
        ended: How it ended; ``None`` while it runs, and where nobody knows.
    """

    state: SandboxState
    ended: Ended | None = None


@attrs.frozen(kw_only=True)
class Wanted:
    """The body of a collection.

    Attributes:
        patterns: Paths relative to the workspace; ``*`` stays in a folder, ``**`` crosses.
    """

    patterns: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Manifest:
    """The first line of a collection; then come the artifacts' bytes, each digest's once.

    Attributes:
        artifacts: What comes, in this order.
        skipped: Path -> the reason it does not.
    """

    artifacts: tuple[Artifact, ...] = ()
    skipped: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class Pinned:
    """A spec whose template is named by what it means now.

    Attributes:
        spec: The spec, without files.
    """

    spec: SandboxSpec
