"""What checks ask a sandbox about itself, wherever it has its folders and processes."""

from __future__ import annotations

from sandbox_sdk.sandbox import AsyncSandbox

PROGRAMS = "readlink /proc/[0-9]*/exe"
"""Prints the programs that code inside may look into: only its own, where others are seen too."""


async def workspace(sandbox: AsyncSandbox) -> str:
    """Return the path of the workspace: ``/workspace`` but where nothing can be mounted there."""
    return (await sandbox.run_command("pwd")).stdout.rstrip("\n")


def has(sandbox: AsyncSandbox, wall: str) -> bool:
    """Whether a wall is one of those that the sandbox's level is made of."""
    return wall in {found.name for found in sandbox.isolation.walls} if sandbox.isolation else False


def held_by(sandbox: AsyncSandbox, limit: str) -> str:
    """Return what holds a limit."""
    return {found.name: found.held_by for found in sandbox.limits}[limit]
