"""Inspect, the framework of the same field, run by its own Python where there is one.

It is run in a process of its own for each measurement, warmed up by a small evaluation first: what
is told is the slope, without import and start. Its scripted model answers, with counts of tokens,
since it looks for a tokenizer on the network else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile

import attrs

from bench.measure import Failed, Refused

PYTHON = "BENCHMARK_INSPECT_PYTHON"
"""The environment variable with the path of a Python that has ``inspect_ai``."""

_SECONDS = 300.0

_PROGRAM = """
import json, resource, sys, time
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.solver import generate, solver
from inspect_ai.util import sandbox

folder, count, boxed, at_once = sys.argv[1], int(sys.argv[2]), bool(sys.argv[3]), int(sys.argv[4])

@solver
def command():
    async def solve(state, generate):
        done = await sandbox().exec(["bash", "-c", "echo one"])
        assert done.stdout.strip() == "one", done
        return state
    return solve

def run(count):
    outputs = [ModelOutput.from_content("mockllm/model", "hello") for _ in range(count)]
    for output in outputs:
        output.usage = ModelUsage(input_tokens=3, output_tokens=1, total_tokens=4)
    samples = [Sample(input=f"question {number}") for number in range(count)]
    task = Task(
        dataset=MemoryDataset(samples),
        solver=[command(), generate()] if boxed else generate(),
        sandbox="local" if boxed else None,
    )
    model = get_model("mockllm/model", custom_outputs=outputs, memoize=False)
    (log,) = eval(
        task, model=model, log_dir=folder, display="none", max_samples=at_once,
        max_sandboxes=at_once, max_subprocesses=at_once,
    )
    assert log.status == "success", log.error
    assert log.results.total_samples == count, log.results

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

run(20)
before, cpu, wall = peak(), time.process_time(), time.perf_counter()
run(count)
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
print(json.dumps({"cpu": cpu / count, "memory": (peak() - before) / count, "rate": count / wall}))
"""


@attrs.frozen(kw_only=True)
class Slope:
    """What one more sample takes.

    Attributes:
        cpu: Seconds of processor time of Inspect's own process.
        memory: Bytes by which its peak grew.
        rate: Samples per second.
    """

    cpu: float
    memory: float
    rate: float


def slope(count: int, *, boxed: bool = False, at_once: int = 100) -> Slope:
    """Return what samples take that a scripted model answers.

    Args:
        count: How many samples.
        boxed: Whether each has Inspect's ``local`` sandbox, which is a folder without any wall, and
            runs one command in it.
        at_once: How many at once.

    Raises:
        Refused: Inspect is not installed.
        Failed: It does not run here.
    """
    program = _python()
    if program is None:
        raise Refused(f"not installed; {PYTHON} may name a Python that has inspect_ai")
    with tempfile.TemporaryDirectory(prefix="sandbox-sdk-inspect-") as folder:
        words = [
            program,
            "-c",
            _PROGRAM,
            folder,
            str(count),
            "boxed" if boxed else "",
            str(at_once),
        ]
        try:
            done = subprocess.run(
                words, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"{program}: {error}") from error
    if done.returncode:
        raise Failed(f"it ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return Slope(**json.loads(done.stdout.splitlines()[-1]))


def _python() -> str | None:
    if named := os.environ.get(PYTHON):
        return named
    return sys.executable if importlib.util.find_spec("inspect_ai") else None
