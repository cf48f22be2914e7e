"""Each wall switched off in turn: the level is met all the same, or refused with the wall's name.

A process makes itself a host without the wall (``without.py``), and sets up a real sandbox.
"""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from host import ROOT

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import IsolationError
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.policies import HIGH

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WITHOUT = Path(__file__).with_name("without.py")
NAMESPACE = Path(__file__).parents[1] / "unit" / "namespace_helper.py"
LIMITS = ("memory", "cpu", "pids")
NO_GROUP = () if cgroups.find()[0] else LIMITS
"""What this host itself lacks for ``high``."""


def without(
    state: Path,
    lacks: dict[str, Any],
    *,
    level: str = "medium",
    runtime: str | None = None,
    waive: tuple[str, ...] = (),
    inside: tuple[int, int] | None = None,
    **settings: object,
) -> dict[str, Any]:
    """Return how setting up a sandbox ends on a host that lacks something.

    Args:
        state: The client's data.
        lacks: As ``without.py`` takes it.
        level: The security level.
        runtime: The only runtime to try.
        waive: What may be missing.
        inside: Do it in a user namespace that allows so many further ones, for so many users.
        settings: Further settings of the client.
    """
    chosen = {"runtime": runtime} if runtime else {}
    spec = {
        "state": str(state),
        "settings": {**chosen, "security": {"level": level}, **settings},
        "sandbox": {"waive": waive},
    }
    words = [json.dumps(lacks), json.dumps(spec)]
    command = [str(WITHOUT), *words]
    if inside is not None:
        code = f"import runpy, sys; sys.argv = {command!r}; runpy.run_path({str(WITHOUT)!r}, "
        command = [str(NAMESPACE), *map(str, inside), f"{code}run_name='__main__')"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def made(said: dict[str, Any]) -> dict[str, Any]:
    """Return what a sandbox that was set up is made of."""
    assert said.get("stdout") == "inside\n", said
    isolation: dict[str, Any] = said["isolation"]
    return isolation


def missing(said: dict[str, Any]) -> dict[str, str]:
    """Return the walls that a refusal names, each with its fix, which is in its message too."""
    assert said.get("error") == "IsolationError", said
    walls: dict[str, str] = said["walls"]
    for name, fix in walls.items():
        assert fix
        assert fix in said["message"]
        assert name in said["message"]
    return walls


REFUSALS = {
    "namespaces, as in a container": ({"namespaces": False}, "user_namespace", "docker run"),
    "filters": ({"filters": False}, "seccomp", "CONFIG_SECCOMP_FILTER"),
}


@pytest.mark.parametrize("runtime", [None, "zygote", "bubblewrap"])
@pytest.mark.parametrize("lack", REFUSALS)
def test_no_runtime_goes_without(tmp_path: Path, lack: str, runtime: str | None) -> None:
    """What every sandbox is made of is refused by each runtime, with one and the same fix."""
    lacks, wall, fix = REFUSALS[lack]
    said = without(tmp_path, lacks, runtime=runtime)
    walls = missing(said)
    assert set(walls) == {wall}
    assert fix in walls[wall] or "this process inherited" in said["message"]
    if runtime is None:
        assert "the zygote runtime does not work here" in said["message"]
        assert said["message"].count(f"{wall}: ") == 2, "one reason for each runtime"


@pytest.mark.parametrize("runtime", [None, "zygote", "bubblewrap"])
def test_user_namespaces_switched_off(tmp_path: Path, runtime: str | None) -> None:
    """The setting that forbids user namespaces is named, with the command that allows them."""
    walls = missing(without(tmp_path, {}, runtime=runtime, inside=(0, 2**32 - 1)))
    assert set(walls) == {"user_namespace"}
    assert "echo user.max_user_namespaces=" in walls["user_namespace"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP], ids=["absent", "disabled"])
def test_no_landlock(tmp_path: Path, number: int) -> None:
    """A kernel without Landlock gives ``medium``, and ``high`` only to who waives it by name."""
    lacks = {"calls": {"landlock_create_ruleset": number}}
    assert made(without(tmp_path, lacks))["waived"] == []
    refused = missing(without(tmp_path, lacks, level="high", waive=NO_GROUP))
    assert set(refused) == {"landlock"}
    assert 'waive=("landlock",)' in refused["landlock"]
    isolation = made(without(tmp_path, lacks, level="high", waive=("landlock", *NO_GROUP)))
    assert set(isolation["waived"]) == {"landlock", *NO_GROUP}
    walls = {wall["name"]: wall for wall in isolation["walls"]}
    assert not walls.pop("landlock")["in_force"]
    assert all(wall["in_force"] for wall in walls.values())


def test_no_control_group(tmp_path: Path) -> None:
    """Without one, ``medium`` says what holds instead, and ``high`` is refused limit by limit."""
    lacks = {"cgroups": False}
    said = without(tmp_path, lacks)
    assert made(said)["waived"] == []
    assert {name: said["limits"][name] for name in LIMITS} == {
        "memory": "watchdog",
        "cpu": "none",
        "pids": "rlimit",
    }
    refused = missing(without(tmp_path, lacks, level="high"))
    assert set(refused) == set(LIMITS)
    assert set(missing(without(tmp_path, lacks, level="high", waive=("cpu",)))) == {
        "memory",
        "pids",
    }
    said = without(tmp_path, lacks, level="high", waive=LIMITS)
    assert set(made(said)["waived"]) == set(LIMITS)
    assert said["limits"]["disk"] == "mount"


def test_no_calls_for_mounts(tmp_path: Path) -> None:
    """An older kernel has no ``mount_setattr``: bubblewrap takes over where it keeps the level."""
    lacks = {"calls": {"mount_setattr": errno.ENOSYS}}
    assert made(without(tmp_path, lacks))["runtime"] == "bubblewrap"
    assert set(missing(without(tmp_path, lacks, runtime="zygote"))) == {"mnt_namespace"}
    # At high both reasons are told: why not the zygote, and what bubblewrap does not give.
    refused = missing(without(tmp_path, lacks, level="high", waive=NO_GROUP))
    assert {"mnt_namespace", "landlock"} <= set(refused)


def test_masked_proc(tmp_path: Path) -> None:
    """Where engines of containers mask parts of /proc only root can mount a whole one."""
    lacks = {"whole_proc": False}
    for runtime in ("bubblewrap",) if ROOT else ("zygote", "bubblewrap", None):
        walls = missing(without(tmp_path, lacks, runtime=runtime))
        assert set(walls) == {"pid_namespace"}
        assert "systempaths=unconfined" in walls["pid_namespace"]
    if ROOT:
        isolation = made(without(tmp_path, lacks))
        assert isolation["runtime"] == "zygote"
        assert all(wall["in_force"] for wall in isolation["walls"])


@pytest.mark.skipif(not ROOT, reason="only root drops to other user ids")
@pytest.mark.parametrize("runtime", [None, "bubblewrap"])
def test_user_ids_that_do_not_exist(tmp_path: Path, runtime: str | None) -> None:
    """A rootless container's root has few user ids, and none of ours."""
    walls = missing(without(tmp_path, {}, runtime=runtime, inside=(1000, 65536)))
    assert set(walls) == {"own_uid"}
    assert "uid_range" in walls["own_uid"]


@pytest.mark.anyio
@pytest.mark.skipif(not ROOT, reason="only root drops to other user ids")
@pytest.mark.parametrize("runtime", ["zygote", "bubblewrap"])
async def test_no_spare_user_id(tmp_path: Path, runtime: str) -> None:
    """As long as the only uid is another sandbox's, there is no second sandbox."""
    settings: dict[str, object] = {
        "runtime": runtime,
        "uid_range": {"first": 2_000_000_000, "count": 1},
        "orchestrator": {"pool_size": 0},
    }
    async with AsyncSandboxClient(state_dir=tmp_path, config=settings) as client:
        async with await client.create_sandbox("first"):
            second = await client.create_sandbox("second")
            with pytest.raises(IsolationError, match="uid_range") as caught:
                await second.setup()
        assert [wall.name for wall in caught.value.walls] == ["own_uid"]
        async with second:
            assert (await second.run_command("echo inside")).stdout == "inside\n"


def test_nothing_lacking(tmp_path: Path) -> None:
    """The same program on this host as it is: every refusal above comes from what was missing."""
    isolation = made(without(tmp_path, {}, level="high", waive=NO_GROUP))
    assert isolation["runtime"] == "zygote"
    assert [wall["name"] for wall in isolation["walls"] if wall["in_force"]] == list(HIGH.walls)
    assert set(isolation["waived"]) == set(NO_GROUP)
