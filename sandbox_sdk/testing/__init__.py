"""The contract of a sandbox as checks that anyone can run over a backend, runtime or face.

Each check is an async function that takes a client and raises ``AssertionError`` when the
contract is broken::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_contract(check, client):
        await check(client)
"""

from sandbox_sdk.testing import (
    code,
    commands,
    displays,
    files,
    lifecycle,
    limits,
    terminals,
    watches,
)

CHECKS = (
    *commands.CHECKS,
    *code.CHECKS,
    *displays.CHECKS,
    *files.CHECKS,
    *terminals.CHECKS,
    *watches.CHECKS,
    *lifecycle.CHECKS,
    *limits.CHECKS,
)
"""Every check, in no order that matters."""

__all__ = ["CHECKS"]
