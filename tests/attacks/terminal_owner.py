"""Run the attack on terminals in a sandbox, from a terminal.

Usage: ``python terminal_owner.py ARGUMENTS``, which are, as JSON, a folder, a client's settings and
what the sandbox may go without.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

from sandbox_sdk.client import AsyncSandboxClient

PROGRAMS = Path(__file__).parent / "programs"


async def main(folder: str, settings: dict[str, object], waive: list[str]) -> None:
    """Print what the attack told."""
    files = {path.name: path.read_text() for path in PROGRAMS.glob("*.py")}
    async with AsyncSandboxClient(state_dir=f"{folder}/state", config=settings) as client:
        sandbox = await client.create_sandbox("from a terminal", files=files, waive=waive)
        done = await sandbox.run_command(["python", "inject_input.py"])
        sys.stdout.write(done.stdout + done.stderr)


if __name__ == "__main__":
    anyio.run(main, *json.loads(sys.argv[1]))
