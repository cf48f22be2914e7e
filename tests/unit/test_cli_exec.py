"""``sandbox-sdk exec``: real sandboxes, real pipes and a real terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from command_line import PROGRAM, Typist, on_terminal, run, start

from sandbox_sdk.cli.execute import exit_code
from sandbox_sdk.values import Ended, EndKind

pytestmark = pytest.mark.timeout(60)  # several processes, each with a start of its own


def test_input_output_and_exit_code_are_the_commands(tmp_path: Path) -> None:
    script = "tr a-z A-Z; echo oops >&2; exit 7"
    done = run(tmp_path, "exec", "--", "sh", "-c", script, stdin=b"hello\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"HELLO\n", b"oops\n", 7)


def test_bytes_pass_unchanged_when_no_terminal_reads_them(tmp_path: Path) -> None:
    sent = bytes(range(256)) * 4096
    done = run(tmp_path, "exec", "--", "cat", stdin=sent)
    assert done.stdout == sent


def test_a_terminal_gets_no_escapes(tmp_path: Path) -> None:
    hostile = r"a\033[31mred\033]0;title\007\r\342\200\256b\n"
    came = on_terminal(tmp_path, "exec", "--", "printf", hostile)
    assert came.replace(b"\r\n", b"\n") == b"ared\nb\n"


def test_a_file_as_input_and_output_works(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 200_000)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        command = [*PROGRAM, "--state-dir", str(tmp_path / "state"), "exec", "--", "cat"]
        done = subprocess.run(command, stdin=source, stdout=target, check=False)
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"x" * 200_000


def test_options_of_the_command_are_its_own(tmp_path: Path) -> None:
    done = run(tmp_path, "exec", "echo", "--json", "--timeout", "x")
    assert done.stdout == b"--json --timeout x\n"


def test_a_fresh_sandbox_leaves_nothing_and_a_named_one_its_files(tmp_path: Path) -> None:
    run(tmp_path, "exec", "--", "touch", "fresh")
    assert json.loads(run(tmp_path, "list", "--json").stdout) == {"sandboxes": []}
    run(tmp_path, "exec", "--name", "kept", "--", "touch", "kept")
    done = run(tmp_path, "exec", "--name", "kept", "--", "ls")
    assert done.stdout == b"kept\n"
    (info,) = json.loads(run(tmp_path, "list", "--json").stdout)["sandboxes"]
    assert run(tmp_path, "exec", "--id", info["id"], "--", "ls").stdout == b"kept\n"
    refused = run(tmp_path, "exec", "--name", "kept", "--memory", "1GiB", "--", "ls")
    assert refused.returncode == 2
    assert b"has its limits already" in refused.stderr


def test_a_verdict_of_the_host_is_told_and_is_the_exit_code(tmp_path: Path) -> None:
    slow = run(tmp_path, "exec", "--timeout", "0.5", "--", "sleep", "60")
    assert slow.returncode == 124
    assert slow.stderr == b"sandbox-sdk: the command ended timeout (timeout 0.5)\n"
    for wrong in ("nan", "-1", "inf"):
        refused = run(tmp_path, "exec", "--timeout", wrong, "--", "true")
        assert refused.returncode == 1
        assert refused.stderr.startswith(b"error: timeout: must be a finite number")
    killed = run(tmp_path, "exec", "--", "sh", "-c", "kill -9 $$")
    assert killed.returncode == 128 + 9
    assert b"SIGKILL" in killed.stderr


VERDICTS = {
    EndKind.OK: 0,
    EndKind.NONZERO: 3,
    EndKind.SIGNAL: 139,
    EndKind.TIMEOUT: 124,
    EndKind.OOM: 137,
    EndKind.PIDS: 125,
    EndKind.DISK: 125,
    EndKind.OUTPUT_LIMIT: 125,
    EndKind.POLICY_DENIED: 125,
    EndKind.CANCELLED: 125,
    EndKind.SANDBOX_DIED: 125,
    EndKind.INFRA: 125,
}


@pytest.mark.parametrize("kind", EndKind)
def test_every_end_has_an_exit_code(kind: EndKind) -> None:
    code = {EndKind.OK: 0, EndKind.NONZERO: 3}.get(kind)
    number = signal.SIGSEGV if kind is EndKind.SIGNAL else None
    assert exit_code(Ended(kind=kind, exit_code=code, signal=number)) == VERDICTS[kind]


def test_json_is_one_document_with_the_verdict(tmp_path: Path) -> None:
    done = run(tmp_path, "--json", "exec", "--", "sh", "-c", "cat; exit 4", stdin=b"\x1b[31m")
    told = json.loads(done.stdout)
    assert (told["stdout"], told["exit_code"], done.returncode) == ("\x1b[31m", 4, 4)
    assert told["ended"]["kind"] == "nonzero"
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_command_is_ended_and_its_sandbox_removed(
    number: signal.Signals, tmp_path: Path
) -> None:
    process = start(tmp_path, "exec", "--", "sh", "-c", "echo ready; sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert stderr == b""
    assert json.loads(run(tmp_path, "list", "--json").stdout) == {"sandboxes": []}


def test_a_reader_that_goes_away_ends_the_command(tmp_path: Path) -> None:
    process = start(tmp_path, "exec", "--", "yes")
    assert process.stdout is not None
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    assert process.wait(timeout=10) == 128 + signal.SIGPIPE
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_terminal_is_handed_to_the_command(tmp_path: Path) -> None:
    """Keys, Ctrl-C too, and sizes reach the command; afterwards the terminal is as it was."""
    typist = Typist(tmp_path, "exec", "--tty", "--", "/bin/bash", "--norc", "--noediting")
    before = typist.flags()
    typist.wait_for(b"$ ")
    typist.resize(111, 33)
    typist.type(b'until test "$(stty size)" = "33 111"; do :; done; echo re""sized\n')
    typist.wait_for(b"resized\r\n")
    typist.type(b'echo sle""eps; sleep 1000\n')
    typist.wait_for(b"sleeps\r\n")
    typist.type(b"\x03")
    typist.wait_for(b"$ ")
    typist.type(b"echo code $?; exit 7\n")
    typist.wait_for(b"code 130\r\n")
    assert typist.process.wait() == 7
    assert typist.flags() == before
    os.close(typist.terminal)


def test_a_terminal_is_refused_where_there_is_none(tmp_path: Path) -> None:
    for arguments in (("--tty",), ("--tty", "--json")):
        done = run(tmp_path, "exec", *arguments, "--", "true")
        assert done.returncode == 2
        assert b"--tty" in done.stderr
