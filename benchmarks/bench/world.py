"""The world that sandboxes and references share: one numpy, one statement, one answer."""

from __future__ import annotations

import importlib.util
import sys
import time
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from bench.measure import Failed, Refused, Run
from sandbox_sdk import (
    AsyncSandbox,
    AsyncSandboxClient,
    IsolationError,
    SandboxError,
    TemplateError,
)

# The key that a state folder gets at `high` is lost with what was measured.
warnings.filterwarnings("ignore", "no encryption key was set")

STATEMENT = "import numpy as np; float(np.arange(10).sum())"
PROGRAM = "import numpy as np; print(float(np.arange(10).sum()), flush=True)"
ANSWER = "45.0"


def pooled(ready: int) -> dict[str, object]:
    """Return settings of a client with so many sandboxes ready."""
    return {"orchestrator": {"pool_size": ready}}


NO_POOL: Mapping[str, object] = pooled(0)
SMALL: Mapping[str, object] = {"memory": "256MiB", "tmp": "16MiB", "pids": 64}
"""Resources of sandboxes that do next to nothing, so that many fit."""


@attrs.frozen(kw_only=True)
class World:
    """Where numpy comes from.

    Attributes:
        arguments: Of ``create_sandbox``: the template and what it preloads.
        site: The folder that references import it from: the same files where it can be.
    """

    arguments: Mapping[str, Any]
    site: Path


async def numpy_world(client: AsyncSandboxClient, run: Run) -> World:
    """Build the template with numpy beforehand, or fall back to this environment's numpy.

    Raises:
        ModuleNotFoundError: There is no index to take it from, nor is it installed here.
    """
    try:
        info = await client.build_template(["numpy"])
    except TemplateError as error:
        found = importlib.util.find_spec("numpy")
        if found is None or found.origin is None:
            raise ModuleNotFoundError(
                f"numpy is not installed, and no template: {error}"
            ) from error
        run.notes.append(f'numpy: of this environment, template="host", for {first_line(error)}')
        arguments = {"template": "host", "preload": ["numpy"]}
        return World(arguments=arguments, site=Path(found.origin).parents[1])
    run.notes.append(f"numpy: a template of its own, {', '.join(info.versions)}")
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = run.state.resolve() / "templates" / info.key / "venv/lib" / python / "site-packages"
    return World(arguments={"packages": ["numpy"], "preload": ["numpy"]}, site=site)


async def first_result(sandbox: AsyncSandbox) -> None:
    """Run the numpy statement in the sandbox's default context and check the answer.

    Raises:
        Failed: The answer is another.
    """
    result = await sandbox.run_code(STATEMENT, context="main")
    if result.text != ANSWER:
        raise Failed(f"{result.text} instead of {ANSWER}: {result.error or result.ended}")


async def cold(client: AsyncSandboxClient, arguments: Mapping[str, Any]) -> float:
    """Return the seconds from nothing to a numpy result; the sandbox is then deleted.

    Raises:
        Failed: It did not start, or gave no right answer.
        Refused: This machine does not offer what was asked for.
    """
    with judged():
        began = time.perf_counter()
        sandbox = await client.create_sandbox("cold", **arguments)
        try:
            await sandbox.setup()
            await first_result(sandbox)
            return time.perf_counter() - began
        finally:
            await client.delete_sandbox(sandbox.id)


@contextmanager
def judged() -> Generator[None]:
    """Tell errors of the SDK as failed, or as refused where the machine lacks a wall.

    Raises:
        Failed: Any other error of the SDK.
        Refused: A wall cannot be had.
    """
    try:
        yield
    except IsolationError as error:
        raise Refused(first_line(error)) from error
    except SandboxError as error:
        raise Failed(f"{type(error).__name__}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return str(error).strip().partition("\n")[0]
