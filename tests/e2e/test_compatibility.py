"""What programs can do at the strictest level, and what they cannot: ``docs/compatibility.md``.

Nothing is skipped: gcc and git are installed by ``.ci/run``, node and the packages are in the
dependency group ``test``, and all else comes with Debian's and Python's base.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attacking import LIMITS
from refusals import REFUSALS, Refusal
from wheels import make_wheel
from works import PYTHON, SHELL

from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.sandbox import AsyncSandbox

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(120)]

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run the module on one loop, for its sandboxes share a client."""
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncSandboxClient]:
    settings = {"runtime": "zygote", "security": {"level": "high"}}
    folder = tmp_path_factory.mktemp("compatibility")
    async with AsyncSandboxClient(state_dir=folder / "state", config=settings) as opened:
        yield opened


@pytest.fixture
async def sandbox(client: AsyncSandboxClient, tmp_path: Path) -> AsyncIterator[AsyncSandbox]:
    wheel = make_wheel(tmp_path)
    async with await client.create_sandbox(
        "compatible",
        template="host",
        files={wheel.name: wheel.read_bytes()},
        resources={"memory": "2GiB"},  # what node reserves counts where no group does the counting
        waive=LIMITS,
    ) as sandbox:
        yield sandbox
    await client.delete_sandbox(sandbox.id)


@pytest.mark.parametrize("program", PYTHON.values(), ids=PYTHON)
async def test_python_works(sandbox: AsyncSandbox, program: str) -> None:
    await sandbox.files.write("program.py", program)
    done = await sandbox.run_command(["python", "-X", "dev", "program.py"], timeout=100)
    assert done.ok, f"{done.ended}: {done.stderr}"


@pytest.mark.parametrize("script", SHELL.values(), ids=SHELL)
async def test_programs_work(sandbox: AsyncSandbox, script: str) -> None:
    done = await sandbox.run_command(["bash", "-euxc", script], timeout=60)
    assert done.ok, f"{done.ended}: {done.stderr}"


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_what_does_not_work_is_told(sandbox: AsyncSandbox, refusal: Refusal) -> None:
    done = await sandbox.run_command(["python", "-c", refusal.program], timeout=60)
    assert not done.ok
    assert re.match(refusal.told, done.stderr.splitlines()[-1]), done.stderr


async def test_memory_files_are_there_only_where_they_are_counted(sandbox: AsyncSandbox) -> None:
    done = await sandbox.run_code("import os; os.memfd_create('x') > 0")
    held = {limit.name: limit.held_by for limit in sandbox.limits}
    if held["memory"].startswith("cgroup"):
        assert done.text == "True"
    else:
        assert done.error is not None
        assert "Function not implemented" in done.error.message


def test_the_page_has_a_row_for_each() -> None:
    works, _, refused = PAGE.read_text().partition("\n## What does not work")
    assert _first_cells(works) == {*PYTHON, *SHELL}
    assert _first_cells(refused) == {*REFUSALS, "`memfd_create` without a control group"}


def _first_cells(text: str) -> set[str]:
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    return {row for row in rows if row not in ("what", "---")}
