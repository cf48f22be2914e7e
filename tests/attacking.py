"""What attacks share by name: their programs, and how one is run inside and outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

PROGRAMS = Path(__file__).parent / "attacks" / "programs"

Inside = Callable[..., Awaitable[dict[str, str]]]
"""Runs an attack program in the sandbox: its name and arguments -> what it told."""

Outside = Callable[..., dict[str, str]]
"""Runs one on the host, where it must work."""
