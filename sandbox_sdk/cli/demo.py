"""``demo``: a small language model's code, run in a sandbox, tracked and exported."""

from __future__ import annotations

import importlib.util
import os
import shlex
from pathlib import Path
from typing import Any

import anyio
import attrs
import click

from sandbox_sdk.cli.output import Output
from sandbox_sdk.cli.running import Session, global_options, run
from sandbox_sdk.errors import ModelNotFound
from sandbox_sdk.experiments.models.install import INSTALLABLE, install_model
from sandbox_sdk.experiments.models.local_files import find_model_file
from sandbox_sdk.experiments.results.result import ExperimentResult
from sandbox_sdk.sandbox import AsyncSandbox
from sandbox_sdk.values import COUNTED

PROMPT = "Write Python that prints the sum of the squares of the numbers from 1 to 10."
"""What the model is asked unless told otherwise."""

GRAMMAR = r"""
root ::= "```python\n" line{1,30} "```"
line ::= [^`\x00-\x1F\x7F]{0,100} "\n"
"""
"""Exactly one Python block of bounded length: a model this small cannot be trusted with more."""

_LOCAL = "local/"
_SECONDS = 50.0
_TOOL_SECONDS = 10.0
_TOKENS = 1024
_SEED = 1
_SHOWN = ("memory", "cpu", "pids", "disk")


@attrs.frozen(kw_only=True)
class _Wanted:
    prompt: str
    model: str | None
    output: Path


@click.command()
@click.option("--prompt", default=PROMPT, show_default=True, help="What the model is asked.")
@click.option("--model", help="By default the small model local/smollm2, fetched if need be.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sandbox-sdk-results"),
    show_default=True,
    help="The folder that gets a folder with the results.",
)
@global_options
def demo(prompt: str, model: str | None, output: Path) -> None:
    """Let a small model write a program, run it in a sandbox, and export what happened.

    Needs no key, no server and no root. What the model writes may be wrong; what is shown is what
    it really did.
    """
    run(lambda session: _demo(session, _Wanted(prompt=prompt, model=model, output=output)))


async def _demo(session: Session, wanted: _Wanted) -> int:
    output = session.output
    model = wanted.model or f"{_LOCAL}{session.settings.local_model}"
    if model.startswith(_LOCAL):
        await _have(session, model.removeprefix(_LOCAL))
    async with session.client() as client:
        sandbox = await client.create_sandbox("demo", resources={"memory": "512MiB"})
        try:
            async with sandbox:
                _show_isolation(output, sandbox)
                output.heading(f"Prompt to {model}")
                output.block(wanted.prompt)
                with output.working("the model writes, the sandbox runs"):
                    result = await sandbox.run_experiment(_experiment(model, wanted.prompt))
                _show_result(output, result)
                (folder,) = await sandbox.export_results(wanted.output)
        finally:
            with anyio.CancelScope(shield=True):
                await client.delete_sandbox(sandbox.id)
    output.heading("Exported")
    output.line(f"    {folder}")
    output.line(f"    (cd {shlex.quote(str(folder))} && sha256sum -c SHA256SUMS)")
    output.document({"exported": str(folder), "result": result.to_dict()})
    return 0 if result.state in COUNTED else 1


async def _have(session: Session, name: str) -> None:
    """Fetch the model if it is not there.

    Raises:
        ModelNotFound: llama.cpp is not installed, or there is no such model to fetch.
        ModelError: It could not be fetched.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ModelNotFound(
            "a local model needs llama.cpp, which is not installed; "
            'run: pip install "sandbox-sdk[local]"',
            model=f"{_LOCAL}{name}",
        )
    folder = await session.models_dir()
    try:
        await anyio.to_thread.run_sync(find_model_file, name, folder, os.environ)
    except ModelNotFound:
        if name not in INSTALLABLE:
            raise
        with session.output.working(f"installing the model {name}") as step:
            await install_model(name, folder, progress=step)


def _experiment(model: str, prompt: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {"temperature": 0, "max_tokens": _TOKENS}
    if model.startswith(_LOCAL):
        parameters["extra_body"] = {"grammar": GRAMMAR}
    return {
        "name": "demo",
        "model": model,
        "prompt": prompt,
        "parameters": parameters,
        "seed": _SEED,
        "tools": ["python"],
        "tool_format": "code_block",
        "single_turn": True,
        "limits": {"turns": 1, "time": _SECONDS, "tool_timeout": _TOOL_SECONDS},
    }


def _show_isolation(output: Output, sandbox: AsyncSandbox) -> None:
    if (isolation := sandbox.isolation) is None:
        raise AssertionError("unreachable: the sandbox is set up")
    output.heading("Isolation in force")
    proven = sum(wall.in_force for wall in isolation.walls)
    output.line(
        f"    {isolation.runtime}, level {isolation.level}: {proven} walls proven "
        "from inside, no network"
    )
    if isolation.waived:
        output.line(f"    missing, as waived: {', '.join(isolation.waived)}")
    held = {limit.name: limit.held_by for limit in sandbox.limits if limit.name in _SHOWN}
    for name, by in held.items():
        output.line(f"    {name}: {'not held on this host' if by == 'none' else f'held by {by}'}")


def _show_result(output: Output, result: ExperimentResult) -> None:
    for call in result.tool_calls:
        output.heading("What the model wrote")
        output.block(str(call.arguments.get("code", call.arguments)), language="python")
        output.heading(f"What it did in the sandbox ({call.duration:.2f} s)")
        output.block(call.result)
    if not result.tool_calls:
        output.heading("What the model answered: no program")
        output.block(result.output or "[nothing]")
    why = result.error.message if result.error else result.limit.type if result.limit else ""
    why = why.partition("\n")[0]
    output.heading(f"Status: {result.status}{f' ({why})' if why else ''}")
    output.line(
        f"    {result.usage.total_tokens} tokens, {result.timings.model_time:.1f} s of model time"
    )
    if result.provenance.mock:
        output.line("    The answer is scripted: no model was asked.")
    output.line("    Nobody checked the answer: models can be wrong, and small ones often are.")
