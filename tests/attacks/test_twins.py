"""Attacks by likeness: sandboxes cloned from one zygote, and what each could know of the others.

A clone begins with the memory of its zygote: with the state of every random source in it, and with
all that the zygote was told.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
from attacking import PROGRAMS, Kind
from host import told

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import new_id

pytestmark = pytest.mark.anyio

DRAW = """
import os, random, secrets, ssl, tempfile, uuid
import numpy
{
    "random": random.random(),
    "numpy": float(numpy.random.rand()),
    "numpy generator": float(numpy.random.default_rng().random()),
    "uuid4": str(uuid.uuid4()),
    "uuid1": str(uuid.uuid1()),
    "secrets": secrets.token_hex(),
    "temporary name": tempfile.mktemp(),
    "OpenSSL": ssl.RAND_bytes(16).hex(),
    "getrandom": os.getrandom(16).hex(),
    "hash seed": hash("a"),
    "address": id(object()),
}
"""
REPEATED_BY_SEED = {"random", "numpy"}
ALIKE_IN_CLONES = {"hash seed", "address"}
"""What one exec of the zygote decides; no secret of a sandbox depends on it."""
PRELOAD = ("random", "ssl", "tempfile", "uuid", "secrets", "numpy", "numpy.random")

CANARIES = (
    "name", "env", "variable", "file", "path", "metadata", "argument", "input", "code", "own",
)  # fmt: skip

Drawn = dict[str, object]
Draw = Callable[..., Awaitable[list[Drawn]]]


@pytest.fixture
def draw(client: AsyncSandboxClient, kind: Kind) -> Draw:
    """Return a function that makes sandboxes of one template and has each draw."""

    async def run(count: int, seed: int | None = None) -> list[Drawn]:
        preload = PRELOAD if kind.runtime == "zygote" else ()
        drawn: list[Drawn] = []
        for number in range(count):
            name = f"twin {number}"
            async with await client.create_sandbox(
                name, template="host", preload=preload, seed=seed
            ) as sandbox:
                for context in (None, "kept"):
                    done = await sandbox.run_code(DRAW, context=context)
                    assert done.text is not None, done.stderr
                    drawn.append(ast.literal_eval(done.text))
        return drawn

    return run


def test_a_fork_repeats_what_nobody_seeds_anew() -> None:
    """The attack is real: two forks of one process draw the same number from numpy."""
    code = (
        "import os, numpy.random\n"
        "for _ in range(2):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        print(numpy.random.rand(), flush=True)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert first == second


async def test_random_twins(draw: Draw) -> None:
    """Two sandboxes of one zygote, and two contexts of one sandbox, draw different numbers."""
    drawn = await draw(2)
    assert len(drawn) == 4
    for source in drawn[0].keys() - ALIKE_IN_CLONES:
        values = [each[source] for each in drawn]
        assert len(set(values)) == len(values), f"{source}: {values}"


async def test_seeded_twins(draw: Draw) -> None:
    """A seed repeats what is meant to repeat, and nothing that must stay secret."""
    first, _, second, _ = await draw(2, seed=7)
    (other, _) = await draw(1, seed=8)
    for source in first.keys() - ALIKE_IN_CLONES:
        assert (first[source] == second[source]) is (source in REPEATED_BY_SEED), source
        assert first[source] != other[source], source


@pytest.mark.parametrize("ended", [False, True], ids=["alive", "ended"])
async def test_memory_of_an_earlier_sandbox(client: AsyncSandboxClient, ended: bool) -> None:
    """In all its memory code finds nothing of a sandbox that the same zygote made before its own.

    What its own sandbox was given it does find.
    """
    canaries = {what: new_id(f"canary_{what}") for what in CANARIES}
    async with await _told(client, canaries) as first:
        await first.run_command(["echo", canaries["argument"]], stdin=canaries["input"])
        await first.run_code(f"kept = {canaries['code']!r}")
        own = await _scanned(first)
        if ended:
            await first.cleanup()
        async with await client.create_sandbox("second", env={"OWN": canaries["own"]}) as second:
            found = await _scanned(second)
    assert canaries["env"] in own
    assert canaries["own"] in found
    assert not (set(canaries.values()) - {canaries["own"]}) & found


async def test_ids_of_an_earlier_sandbox(client: AsyncSandboxClient) -> None:
    """Nor does it find out what the other is called, and where on the host it is kept."""
    async with (
        await client.create_sandbox("first") as first,
        await client.create_sandbox("second") as second,
    ):
        await first.run_code("1")
        found = await _scanned(second)
        assert first.id not in found


async def _told(client: AsyncSandboxClient, canaries: dict[str, str]) -> AsyncSandbox:
    """Return a sandbox that was told of each canary in its own way."""
    return await client.create_sandbox(
        canaries["name"],
        env={"KEY": canaries["env"], canaries["variable"]: "x"},
        files={"file": canaries["file"], canaries["path"]: ""},
        metadata={"note": canaries["metadata"]},
    )


async def _scanned(sandbox: AsyncSandbox) -> set[str]:
    """Return what code finds in its memory: fresh code, and code of a context that is kept."""
    found: set[str] = set()
    for context in (None, "kept"):
        done = await sandbox.run_code((PROGRAMS / "scan_memory.py").read_text(), context=context)
        assert done.ok, done.error
        found |= set(told(done.stdout)["found"].split())
    return found
