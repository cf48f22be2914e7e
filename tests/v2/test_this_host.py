"""The checks of control groups by this host's own kernel, whichever version it has."""

from __future__ import annotations

import inside
import pytest

from sandbox_sdk.isolation.walls import cgroups

FOUND, REASON = cgroups.find()


@pytest.mark.slow
@pytest.mark.skipif(FOUND is None, reason=f"no control group can be made here: {REASON}")
@pytest.mark.parametrize("check", inside.OF_ANY_VERSION)
def test_by_this_kernel(check: str) -> None:
    inside.OF_ANY_VERSION[check]()
