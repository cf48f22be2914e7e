"""What client and server of the token endpoint both know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

TOKEN_PATH = "/v1/oauth/token"  # noqa: S105 - a path
"""Where forms that ask for tokens are sent."""

SESSION_GRANT = "urn:sandbox-sdk:grant-type:session"
"""The grant type that begins a session with an API key."""

Post = Callable[[str, Mapping[str, str]], Awaitable[tuple[int, object, str | None]]]
"""Sends a form to a path of the server, follows no redirect, and returns the answer's status, its
JSON (``None`` if it is none) and its header ``Date``."""
