"""The command line: one group of commands."""

from __future__ import annotations

import click

from sandbox_sdk.cli.admin import admin
from sandbox_sdk.cli.audit import audit
from sandbox_sdk.cli.batches import run_
from sandbox_sdk.cli.compare import compare
from sandbox_sdk.cli.demo import demo
from sandbox_sdk.cli.doctor import doctor
from sandbox_sdk.cli.execute import execute
from sandbox_sdk.cli.keys import keys
from sandbox_sdk.cli.login import login, logout
from sandbox_sdk.cli.models import models
from sandbox_sdk.cli.policy import policy_
from sandbox_sdk.cli.running import global_options
from sandbox_sdk.cli.runs import runs
from sandbox_sdk.cli.sandboxes import delete, export, list_
from sandbox_sdk.cli.serve import serve
from sandbox_sdk.cli.server import server
from sandbox_sdk.cli.templates import template
from sandbox_sdk.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sandbox-sdk", prog_name="sandbox-sdk")
@global_options
def app() -> None:
    """Isolated sandboxes and tracked LLM experiments on this machine."""


for _command in (
    *(demo, run_, runs, execute, list_, export, verify, delete, compare, doctor, policy_, serve),
    *(login, logout),
):
    app.add_command(_command)
for _group in (models, template, keys, audit, server, admin):
    app.add_command(_group)


def main() -> None:
    """Run the command line."""
    app(prog_name="sandbox-sdk")
