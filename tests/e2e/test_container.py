"""Level ``low`` where no namespace or mount can be made, as in a container by its defaults.

A process gives itself what an engine of containers leaves: no right to administer, and a filter
that refuses namespaces and mounts (``without.py``). Then it sets up a real sandbox.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host import ROOT
from test_walls_off import made, missing, without

from sandbox_sdk.policies import LOW

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

CONTAINER = {"container": True, "cgroups": False, "python_shown": ROOT}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that all users may enter, as below ``/var/lib``; pytest's are shut."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def in_container(folder: Path, *, level: str = "low", **lacks: Any) -> dict[str, Any]:
    """Return how setting up a sandbox in a container ends."""
    return without(folder / "state", {**CONTAINER, **lacks}, level=level)


def test_low_works_and_says_what_holds(open_folder: Path) -> None:
    """All walls of the level stand, and each limit says what holds it there."""
    said = in_container(open_folder)
    isolation = made(said)
    assert (isolation["level"], isolation["runtime"]) == ("low", "zygote")
    assert [wall["name"] for wall in isolation["walls"] if wall["in_force"]] == list(LOW.walls)
    held = {name: said["limits"][name] for name in ("memory", "cpu", "pids", "disk", "tmp")}
    assert held == {
        "memory": "watchdog",
        "cpu": "none",
        "pids": "rlimit" if ROOT else "watchdog",
        "disk": "watchdog",
        "tmp": "watchdog",
    }


@pytest.mark.parametrize("level", ["medium", "high"])
def test_more_is_refused_with_the_reason_and_the_fix(open_folder: Path, level: str) -> None:
    """No weaker sandbox is passed off as a stronger one; the level that works is named."""
    walls = missing(in_container(open_folder, level=level))
    assert "user_namespace" in walls
    assert 'security_level="low"' in walls["user_namespace"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP], ids=["absent", "disabled"])
def test_low_is_made_of_landlock(open_folder: Path, number: int) -> None:
    """Without it the level is refused by each runtime, and there is no waiver."""
    walls = missing(in_container(open_folder, calls={"landlock_create_ruleset": number}))
    assert set(walls) == {"landlock"}


@pytest.mark.skipif(not ROOT, reason="a plain user reaches its own folders")
def test_a_shut_folder_on_the_way_is_named(tmp_path: Path) -> None:
    """Where no mount can lead around it, root is told which folder its sandboxes cannot pass."""
    said = in_container(tmp_path)
    walls = missing(said)
    assert set(walls) == {"landlock", "unprivileged_uid"}
    assert "SANDBOX_STATE_DIR" in walls["unprivileged_uid"]
    assert f"{tmp_path.parent.parent}" in said["message"]
