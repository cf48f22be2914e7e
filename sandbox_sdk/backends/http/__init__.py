"""Sandboxes on a server: the control plane over HTTP, one WebSocket to each sandbox in use."""

from __future__ import annotations

from sandbox_sdk.backends.http.backend import HttpBackend
from sandbox_sdk.backends.http.connection import Connection
from sandbox_sdk.backends.http.sealed import SealedHttpBackend

__all__ = ["Connection", "HttpBackend", "SealedHttpBackend"]
