"""Attacks on those who read what comes out: forged results, frames, log lines, terminal codes."""

from __future__ import annotations

import csv
import json
import pickle
import time
from pathlib import Path

import pytest
from host import forget_peak, resident_bytes

from sandbox_sdk.agent import frames
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.errors import ProtocolError
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import EndKind

pytestmark = pytest.mark.anyio

ANSWER = """
import os, stat
def answer(data, times=1):
    for _ in range(times): answer_once(data)
def answer_once(data):
    for descriptor in range(3, 64):
        try:
            if stat.S_IFMT(os.fstat(descriptor).st_mode) in (stat.S_IFIFO, stat.S_IFSOCK):
                while data: data = data[os.write(descriptor, data):]
        except OSError:
            pass
"""
"""Code that sends its own bytes where its context's answer goes."""

HUGE = "one gigabyte"
FORGED = {
    "pickle": repr(pickle.dumps({"results": []}) + b"\n"),
    "YAML tag": repr(b"!!python/object/apply:os.system ['id']\n"),
    "NaN": repr(b'{"results": [], "exit": NaN}\n'),
    "infinity": repr(b'{"results": [], "exit": -Infinity}\n'),
    "key twice": repr(b'{"results": [], "results": []}\n'),
    "depth": "b'[' * 100_000 + b'\\n'",
    "deep object": "b'{\"results\":' * 50_000 + b'\\n'",
    "huge number": "b'{\"results\": [], \"exit\": ' + b'9' * 100_000 + b'}\\n'",
    "no object": repr(b"[]\n"),
    "other shape": repr(b'{"results": [{"text/plain": 1}]}\n'),
    "no results": repr(b'{"error": null}\n'),
    "text for a number": repr(b'{"results": [], "exit": "0"}\n'),
    "half an error": repr(b'{"results": [], "error": {"name": "x"}}\n'),
    "no UTF-8": repr(b'{"results": ["\xff\xfe"]}\n'),
    "no JSON": repr(b"\x00\x01\x02\n"),
    "two megabytes": "b' ' * 2_000_000 + b'\\n'",
    HUGE: "b'[' * 1_000_000, 1_000",
}
BOUND = 64 * 1024 * 1024


def test_a35_readers_that_trust_would_be_fooled() -> None:
    """What is forged here does fool the usual readers: pickle runs it, JSON takes it."""

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (list, ((1, 2),))

    assert pickle.loads(pickle.dumps(Hostile())) == [1, 2]
    assert json.loads(b'{"a": 1, "a": NaN}')["a"] != 1
    with pytest.raises(RecursionError):
        json.loads("[" * 100_000)


@pytest.mark.parametrize("context", [None, "kept"])
async def test_a35_forged_answers_of_code(sandbox: AsyncSandbox, context: str | None) -> None:
    """An answer of any other shape than agreed on is refused at once, and the sandbox goes on."""
    forget_peak()
    before = resident_bytes()
    # What is read to no end is read the same way for both.
    forged = {name: line for name, line in FORGED.items() if context is None or name != HUGE}
    for name, line in forged.items():
        began = time.monotonic()
        with pytest.raises(ProtocolError):
            await sandbox.run_code(f"{ANSWER}answer({line})\nos._exit(0)", context=context)
        took = time.monotonic() - began
        assert took < (10 if name == HUGE else 3), name
    assert resident_bytes("VmHWM") - before < BOUND
    assert (await sandbox.run_code("6 * 7", context=context)).text == "42"


async def test_a35_forged_exit_of_a_kept_context(sandbox: AsyncSandbox) -> None:
    """A context that says it exits, and runs on, is held to its time like any other."""
    code = f"""{ANSWER}answer(b'{{"results": [], "exit": 0}}\\n')\nwhile True: pass"""
    began = time.monotonic()
    done = await sandbox.run_code(code, context="kept", timeout=0.5)
    assert time.monotonic() - began < 4
    assert done.ended.kind is EndKind.TIMEOUT
    assert (await sandbox.run_code("6 * 7", context="kept")).text == "42"


async def test_a35_answer_before_the_end(
    sandbox: AsyncSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fresh code that answers and goes on is ended before anything else begins."""
    monkeypatch.setattr("sandbox_sdk.link.KILL_SECONDS", 0.5)
    note = 'with open("pid", "w") as file: file.write(str(os.getpid()))'
    code = f"""{ANSWER}{note}\nanswer(b'{{"results": []}}\\n')\nwhile True: pass"""
    began = time.monotonic()
    done = await sandbox.run_code(code, timeout=1)
    left = await sandbox.run_command("test -s pid && ! kill -0 $(cat pid)")
    assert time.monotonic() - began < 4
    assert done.ended.kind is EndKind.OK
    assert left.ok


async def test_a35_forged_frames_in_output(sandbox: AsyncSandbox) -> None:
    """Bytes that look like frames of the protocol are output, byte by byte."""
    end = frames.encode(frames.END, 1, body=b'{"exit_code": 0}')
    forged = frames.delimit(end) + frames.delimit(frames.encode(frames.EOF, 1, 1)) + b"\xff" * 64
    assert frames.decode(frames.Splitter().feed(frames.delimit(end))[0]).kind == frames.END
    script = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); sys.exit(3)"
    done = await sandbox.run_command(["python", "-c", script], stdin=forged)
    assert done.stdout_bytes == forged
    assert (done.ended.kind, done.exit_code) == (EndKind.NONZERO, 3)


async def test_a35_verdicts_of_the_host(sandbox: AsyncSandbox) -> None:
    """No exit code or signal that code chooses makes it look out of memory, time or processes."""
    for code in (124, 125, 126, 127, 137, 255):
        done = await sandbox.run_command(f"exit {code}")
        assert (done.ended.kind, done.exit_code) == (EndKind.NONZERO, code)
    for number in (9, 15, 25):
        done = await sandbox.run_command(f"kill -{number} $$")
        assert (done.ended.kind, done.ended.signal) == (EndKind.SIGNAL, number)


HOSTILE = (
    '\x1b]0;owned\x07\x1b[2J\x1b[31m\u202egnp.exe\u2066\x9b1m\r\n=cmd|"/c calc"!A1\n'
    '{"type": "attempt.finished", "data": {"state": "succeeded"}}\n\u2028\x85\x00\x0b'
)


async def test_a36_hostile_text_in_exports(client: AsyncSandboxClient, tmp_path: Path) -> None:
    """Text made to be taken for another line, cell or formula stays the text of its field.

    It is kept whole in the files that programs read; the text for people to read shows none of it.
    """
    naive = f"ran: {HOSTILE}\n".splitlines()
    assert any(line.startswith('{"type": "attempt.finished"') for line in naive)
    sandbox = await client.create_sandbox("hostile text")
    async with sandbox:
        code = f"print({HOSTILE!r})\nraise ValueError({HOSTILE!r})"
        result = await sandbox.run_experiment({"code": code, "name": "=1+1"})
        (run,) = await sandbox.export_results(tmp_path / "out")
    assert result.status != "success"

    assert run.parent == tmp_path / "out"
    assert run.name.isascii()
    events = [json.loads(line) for line in (run / "events.jsonl").read_bytes().splitlines()]
    finished = [event for event in events if event["type"] == "attempt.finished"]
    assert len(finished) == 1
    assert finished[0]["data"]["state"] != "succeeded"
    for table in ("trials.jsonl", "attempts.jsonl"):
        (row,) = (run / table).read_bytes().splitlines()
        assert json.loads(row)["status"] == result.status
    with (run / "trials.csv").open(newline="") as file:
        (cells,) = csv.DictReader(file)
    assert not [cell for cell in cells.values() if cell[:1] in ("=", "+", "@", "\t", "\r")]
    shown = "".join(path.read_text() for path in run.glob("README*"))
    assert shown
    assert not [
        character for character in shown if not (character.isprintable() or character == "\n")
    ]
