"""Control groups of version 2, whole: by Debian's kernel, in a machine of its own.

Which checks there are is in ``inside.py``; the machine is booted once for all of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import inside
import machine
import pytest

pytestmark = [pytest.mark.machine, pytest.mark.timeout(machine.SECONDS + 60)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return why each check failed; empty if it did not."""
    kernel = Path(os.environ["SANDBOX_SDK_TEST_KERNEL"])
    program = Path(inside.__file__)
    lines = machine.run(program, kernel, tmp_path_factory.mktemp("machine")).splitlines()
    said = [json.loads(line) for line in lines if line.startswith('{"check"')]
    assert said, lines
    return {check["check"]: check["failed"] for check in said}


@pytest.mark.parametrize("check", inside.CHECKS)
def test_by_a_kernel_with_version_2(check: str, told: dict[str, str]) -> None:
    assert told[check] == ""
