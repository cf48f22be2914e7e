"""What a command that makes no client has recorded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from anyio import to_thread

from sandbox_sdk.audit import AuditLog, Auditor
from sandbox_sdk.cli.running import Session
from sandbox_sdk.policies import STRONG
from sandbox_sdk.store.folders import StateFolders
from sandbox_sdk.vault import Vault


@asynccontextmanager
async def recording(
    session: Session,
) -> AsyncGenerator[Callable[[str, dict[str, object]], Awaitable[None]]]:
    """Give what records that something was done, where settings want that.

    The log's key, once read, stays known to the block, even if it rotates the master.

    Raises:
        SandboxError: It cannot be recorded, and must be at the level that is set.
    """
    settings = session.settings
    wanted = settings.enable_audit_logs
    if wanted is False or (wanted is None and settings.security_level not in STRONG):

        async def nothing(what: str, data: dict[str, object]) -> None:
            """Record nothing."""

        yield nothing
        return
    folders = await to_thread.run_sync(StateFolders.open, settings.state_dir)
    log = AuditLog(
        folders.root,
        Vault(folders.keys, lambda: settings.key_source),
        secrets=settings.secrets,
        keep_days=settings.audit_keep_days,
    )
    auditor = Auditor(log, every_level=True)

    async def record(what: str, data: dict[str, object]) -> None:
        await auditor.record(what, data=data, level=settings.security_level)

    try:
        yield record
    finally:
        await log.aclose()
