"""What a server offers its clients, and how much of it each tenant may have."""

from __future__ import annotations

from typing import Literal, get_args

import attrs

Allowed = Literal["low", "unsafe", "waivers", "host-template"]
"""What a server refuses unless it is told to offer it."""

ALLOWED: tuple[str, ...] = get_args(Allowed)
"""All of it, by name."""

HEADER_SECONDS = 20.0
"""Longest time for headers to come, where nothing is in front of the server."""


@attrs.frozen(kw_only=True)
class Quota:
    """How much one tenant may have.

    Attributes:
        sandboxes: Records of sandboxes.
        running: Sandboxes that run.
        connections: Clients connected to one sandbox.
    """

    sandboxes: int = 10_000
    running: int = 256
    connections: int = 64


@attrs.frozen(kw_only=True)
class ServerSettings:
    """What a server offers.

    Attributes:
        allow: What it offers of what it otherwise refuses.
        quota: How much one tenant may have.
        idle_timeout: Longest time without a call of a sandbox that asks for none, in seconds.
        drain_seconds: Longest wait for running calls when the server is told to end.
        header_seconds: Longest time for the headers of a request to come, counted from the
            connection's beginning or its last answer; longer than clients keep one idle.
    """

    allow: frozenset[Allowed] = frozenset()
    quota: Quota = Quota()
    idle_timeout: float = 600.0
    drain_seconds: float = 30.0
    header_seconds: float = HEADER_SECONDS
