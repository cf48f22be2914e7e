"""A program that uses the blocking classes ends, whatever it left open, forked children too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import gc, os, sys
import anyio
from sandbox_sdk.errors import SandboxClosed
from sandbox_sdk_sync._twin import Root

class Core:
    async def double(self, number):
        return 2 * number

    async def numbers(self):
        for number in range(10_000):
            yield number

    async def refuse(self):
        raise ValueError("refused")

    async def work_in_a_thread(self):
        await anyio.to_thread.run_sync(len, b"")

    async def aclose(self):
        print("closed", flush=True)

class Client(Root):
    def __init__(self):
        super().__init__(Core)

    def double(self, number):
        return self._call(self._core.double, number)

    def numbers(self):
        return self._portal.iterate(self._core.numbers)
"""

SHAPES = {
    "a module global": """
client = Client()
assert client.double(2) == 4
""",
    "an attribute": """
class Holder: ...
holder = Holder()
holder.client = Client()
holder.client.double(2)
""",
    "an object in a cycle": """
class Holder: ...
holder = Holder()
holder.me, holder.client = holder, Client()
holder.client.double(2)
del holder
""",
    "a kept exception": """
client = Client()
try:
    client._call(client._core.refuse)
except ValueError as exc:
    kept = exc
""",
    "a local of main": """
def main():
    client = Client()
    client.double(2)
main()
""",
    "an iteration left half-way": """
client = Client()
numbers = client.numbers()
next(numbers)
""",
    "a task still running": """
import threading
client = Client()
started = threading.Event()
async def forever():
    started.set()
    await anyio.sleep_forever()
def work():
    try:
        client._call(forever)
    except SandboxClosed:
        pass
threading.Thread(target=work, daemon=True).start()
started.wait()
""",
    "a worker thread used": """
client = Client()
client._call(client._core.work_in_a_thread)
""",
    "an error that ends the program": """
client = Client()
client.double(2)
sys.excepthook = lambda *_: None
raise ValueError("the program's own")
""",
}


def run(script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "program.py"
    program.write_text(PRELUDE + script)
    return subprocess.run(
        [sys.executable, "-X", "dev", str(program)],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_client_never_closed_is_closed_at_exit(shape: str, tmp_path: Path) -> None:
    ended = run(SHAPES[shape], tmp_path)
    assert (ended.stdout, ended.stderr) == ("closed\n", "")
    assert ended.returncode == (1 if "error" in shape else 0)


def test_a_forked_child_gets_a_clear_error_and_may_make_its_own_client(tmp_path: Path) -> None:
    ended = run(
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
client = Client()
numbers = client.numbers()
next(numbers)
client.double(2)
child = os.fork()
if child == 0:
    try:
        client.double(2)
    except SandboxClosed as exc:
        assert "create a client in the child" in str(exc), exc
    else:
        sys.exit("no error in the child")
    client._end(client._core.aclose)  # nothing to do here, and no error
    del client, numbers
    gc.collect()
    own = Client()
    assert own.double(4) == 8
    sys.exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
assert client.double(3) == 6
""",
        tmp_path,
    )
    assert ended.stderr == ""
    assert ended.stdout == "closed\nclosed\n"
    assert ended.returncode == 0


def test_ctrl_c_at_the_outermost_level_ends_the_program(tmp_path: Path) -> None:
    ended = run(
        """
import signal, threading
client = Client()
started = threading.Event()
async def forever():
    try:
        started.set()
        await anyio.sleep_forever()
    finally:
        print("cleaned", flush=True)
def press():
    started.wait()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press).start()
client._call(forever)
""",
        tmp_path,
    )
    assert ended.stdout == "cleaned\nclosed\n"
    assert "KeyboardInterrupt" in ended.stderr
    assert ended.returncode == -2
