"""Tests that boot a kernel: collected where one was given, by ``nox -s cgroup_v2``."""

from __future__ import annotations

import os

collect_ignore = [] if "SANDBOX_SDK_TEST_KERNEL" in os.environ else ["test_cgroup_v2.py"]
