"""What a run ran on: versions of everything that could change a result."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from importlib import metadata
from typing import Any


@cache
def sdk_version() -> str:
    """Return the version of this SDK."""
    try:
        return metadata.version("sandbox-sdk")
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a source tree that was never installed


@cache
def environment() -> dict[str, Any]:
    """Return versions of the SDK, Python, kernel and packages. Reads from the disk once."""
    packages = {dist.name: dist.version for dist in metadata.distributions()}
    uname = os.uname()
    return {
        "sdk": sdk_version(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "system": uname.sysname,
        "kernel": uname.release,
        "machine": uname.machine,
        "packages": dict(sorted(packages.items())),
    }
