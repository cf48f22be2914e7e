"""The demo, as the README runs it: a real model's program in a real sandbox, exported."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SECONDS_AFTER_DOWNLOAD = 60


def demo(state: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox_sdk", "--state-dir", str(state), "demo", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with the small model."""
    folder = tmp_path_factory.mktemp("state")
    install = [sys.executable, "-m", "sandbox_sdk", "--state-dir", str(folder)]
    subprocess.run([*install, "models", "install", "smollm2"], check=True, capture_output=True)
    return folder


def test_the_demo_shows_runs_and_exports_what_a_model_wrote(state: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    done = demo(state, tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < SECONDS_AFTER_DOWNLOAD
    for part in ("Isolation in force", "Prompt to local/smollm2", "What the model wrote"):
        assert part in done.stdout
    assert "    print(" in done.stdout
    assert "Nobody checked the answer" in done.stdout
    checked = re.search(r"^    (\(cd .* && sha256sum -c SHA256SUMS\))$", done.stdout, re.MULTILINE)
    assert checked is not None
    assert checked[1].startswith("(cd sandbox-sdk-results/demo_")
    sums = subprocess.run(["/bin/sh", "-c", checked[1]], cwd=tmp_path, capture_output=True)
    assert sums.returncode == 0
    assert sums.stdout.count(b": OK") >= 8


def test_the_demo_in_json_is_the_result_and_its_failures_are_no_secret(
    state: Path, tmp_path: Path
) -> None:
    asked = "Print the first 10 Fibonacci numbers."
    done = demo(state, tmp_path, "--prompt", asked, "--output", "here", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert document["exported"].startswith("here/demo_")
    result = document["result"]
    (call,) = result["tool_calls"]
    assert call["name"] == "python"
    compile(call["arguments"]["code"], "<answer>", "exec")
    assert (result["status"] == "success") == (call["error"] is None)
    assert json.loads((tmp_path / document["exported"] / "result.json").read_text()) == result


def test_an_answer_that_never_ends_is_bounded(state: Path, tmp_path: Path) -> None:
    asked = "Write Python that prints every number from 1 to 100000, each with its own print call."
    started = time.monotonic()
    done = demo(state, tmp_path, "--prompt", asked, "--json")
    assert time.monotonic() - started < SECONDS_AFTER_DOWNLOAD
    assert json.loads(done.stdout)["result"]["usage"]["output_tokens"] <= 1024


def test_an_interrupted_demo_leaves_no_sandbox(state: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "sandbox_sdk", "--state-dir", str(state)]
    with subprocess.Popen([*program, "demo"], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"the model writes, the sandbox runs ...\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGINT
    listed = subprocess.run([*program, "list", "--json"], capture_output=True, check=True)
    assert json.loads(listed.stdout) == {"sandboxes": []}


def test_a_mock_is_called_a_mock(state: Path, tmp_path: Path) -> None:
    done = demo(state, tmp_path, "--model", "mock/echo")
    assert "The answer is scripted: no model was asked." in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's sandboxes have another user id")
def test_an_installed_model_can_be_read_by_the_sandboxes_of_root(state: Path) -> None:
    assert (state / "models" / "smollm2.gguf").stat().st_mode & 0o777 == 0o644
    assert (state / "models").stat().st_mode & 0o777 == 0o700
