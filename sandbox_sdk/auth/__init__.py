"""Who calls, how that is proven, and what the caller may do."""

from __future__ import annotations

from sandbox_sdk.auth.principal import Principal
from sandbox_sdk.auth.status import AuthStatus, local_status

__all__ = ["AuthStatus", "Principal", "local_status"]
