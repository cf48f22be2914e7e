"""The command line as its users run it: a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = (sys.executable, "-m", "sandbox_sdk")


def run(state: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with pipes."""
    return subprocess.run(
        [*PROGRAM, "--state-dir", str(state), *arguments],
        input=stdin,
        capture_output=True,
        check=False,
    )


def start(state: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command whose output can be read while it runs."""
    return subprocess.Popen(
        [*PROGRAM, "--state-dir", str(state), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def on_terminal(state: Path, *arguments: str) -> bytes:
    """Run a command on a terminal and return all that came to it."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "--state-dir", str(state), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(theirs)
    came = b""
    try:
        while data := os.read(ours, 65536):
            came += data
    except OSError:  # how a terminal says that its last program has gone
        pass
    finally:
        os.close(ours)
    process.wait()
    return came
