"""What code in a sandbox sees of Python is its template, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from wheels import make_wheel, only_index

from sandbox_sdk import AsyncSandboxClient, SandboxClient, TemplateError
from sandbox_sdk.cli.app import app

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is all of uv's index; it has the wheel of ``tiny``."""
    links = only_index(tmp_path, monkeypatch)
    make_wheel(links)
    return links


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[AsyncSandboxClient, None]:
    async with AsyncSandboxClient(state_dir=tmp_path / "state") as opened:
        yield opened


HOST_PACKAGES = """
import importlib, pathlib, sys
found = []
for name in ("pytest", "anyio", "numpy", "pip", "sandbox_sdk"):
    try:
        importlib.import_module(name)
        found.append(name)
    except ImportError:
        pass
files = {path.name for path in pathlib.Path("/opt").rglob("site-packages/*")}
found + sorted(name for name in files if not name.startswith(("tiny", "__pycache__")))
"""


async def test_packages_are_there_and_the_hosts_are_not(client: AsyncSandboxClient) -> None:
    async with await client.create_sandbox("x", packages=["tiny"]) as sandbox:
        assert (await sandbox.run_code("import tiny; tiny.VERSION")).text == "'1.0'"
        assert (await sandbox.run_code(HOST_PACKAGES)).text == "[]"
        by_command = await sandbox.run_command(
            ["python", "-c", "import tiny; print(tiny.__file__)"]
        )
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        assert by_command.stdout == f"/opt/venv/lib/python{version}/site-packages/tiny.py\n"
        assert (await sandbox.run_command("tiny-version")).stdout == "1.0\n"
        assert (await sandbox.run_command("python -c 'import pytest'")).exit_code == 1


async def test_packages_are_read_only_inside(client: AsyncSandboxClient) -> None:
    info = await client.build_template(["tiny"])
    async with await client.create_sandbox("x", template=info.key) as sandbox:
        done = await sandbox.run_command(
            "f=$(python -c 'import tiny; print(tiny.__file__)');"
            "echo mine > $f; chmod u+w $f; rm $f; touch /opt/venv/more; echo end"
        )
        assert done.stdout == "end\n"
        assert (await sandbox.run_code("import tiny; tiny.VERSION")).text == "'1.0'"
    assert await client.verify_template(info.key)


async def test_the_template_python_has_the_standard_library_only(
    client: AsyncSandboxClient,
) -> None:
    async with await client.create_sandbox("x", template="python") as sandbox:
        assert (await sandbox.run_code(HOST_PACKAGES)).text == "[]"
        assert (await sandbox.run_code("import json, sqlite3, ssl; json.dumps(1)")).text == "'1'"
        numpy = await sandbox.run_code("import numpy")
        assert numpy.error is not None
        assert numpy.error.name == "ModuleNotFoundError"


async def test_the_template_host_has_this_environments_packages(
    client: AsyncSandboxClient,
) -> None:
    async with await client.create_sandbox("x", template="host") as sandbox:
        assert (await sandbox.run_code("import numpy; int(numpy.arange(4).sum())")).text == "6"


async def test_a_program_of_a_package_is_found_before_the_hosts(
    index: Path, client: AsyncSandboxClient
) -> None:
    async with await client.create_sandbox("x", packages=["tiny"]) as sandbox:
        done = await sandbox.run_command("command -v python tiny-version")
        assert done.stdout.split() == ["/opt/venv/bin/python", "/opt/venv/bin/tiny-version"]


async def test_another_process_uses_the_same_template(
    client: AsyncSandboxClient, tmp_path: Path
) -> None:
    """Found by its record, and not built again: the index is empty by then."""
    sandbox = await client.create_sandbox("x", packages=["tiny"])
    await client.build_template(["tiny"])
    (tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl").unlink()
    async with (
        AsyncSandboxClient(state_dir=tmp_path / "state") as other,
        await other.get_sandbox(sandbox.id) as found,
    ):
        assert (await found.run_code("import tiny; tiny.VERSION")).text == "'1.0'"


async def test_a_name_is_pinned_when_the_sandbox_is_made(
    index: Path, client: AsyncSandboxClient
) -> None:
    first = await client.build_template(["tiny"], name="mine")
    sandbox = await client.create_sandbox("x", template="mine")
    make_wheel(index, "tiny", "2.0")
    await client.build_template(["tiny>=2"], name="mine")
    assert sandbox.info.spec.template == first.key
    async with sandbox:
        assert (await sandbox.run_code("import tiny; tiny.VERSION")).text == "'1.0'"


async def test_a_template_that_cannot_be_built_is_told_at_setup(
    index: Path, client: AsyncSandboxClient
) -> None:
    sandbox = await client.create_sandbox("x", packages=["no-such-package"])
    with pytest.raises(TemplateError, match="no-such-package"):
        await sandbox.setup()
    make_wheel(index, "no_such_package")
    assert (await sandbox.run_code("import no_such_package as n; n.VERSION")).text == "'1.0'"


async def test_a_template_is_removed_once_no_client_uses_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with AsyncSandboxClient(state_dir=state) as client:
        async with await client.create_sandbox("x", packages=["tiny"]):
            (info,) = await client.list_templates()
            assert info.used_at is not None
        async with AsyncSandboxClient(state_dir=state) as other:
            with pytest.raises(TemplateError, match="in use"):
                await other.remove_template(info.key)
    async with AsyncSandboxClient(state_dir=state) as client:
        assert (await client.remove_template(info.key)).key == info.key
        assert await client.list_templates() == []


def test_the_blocking_face_builds_too(tmp_path: Path) -> None:
    with SandboxClient(state_dir=tmp_path / "state") as client:
        info = client.build_template(["tiny"], name="mine", preload=["tiny"])
        assert client.list_templates() == [info]
        with client.create_sandbox("x", template="mine") as sandbox:
            assert sandbox.info.spec.preload == ("tiny",)
            assert sandbox.run_code("import tiny; tiny.VERSION").text == "'1.0'"


def invoke(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--state-dir", str(state), "template", *arguments])


def test_the_command_builds_lists_verifies_and_removes(tmp_path: Path) -> None:
    state = tmp_path / "state"
    built = invoke(state, "build", "--name", "mine", "--preload", "tiny", "tiny")
    key = built.stdout.split()[0]
    assert built.stdout.splitlines()[1:] == ["    tiny==1.0"]
    assert "compiling" in built.stderr
    (line,) = invoke(state, "list").stdout.splitlines()
    assert line.split("\t")[:3] == [key, "mine", "tiny"]
    assert invoke(state, "verify", "mine").exit_code == 0
    (module,) = (state / "templates" / key).rglob("tiny.py")
    module.chmod(0o644)
    module.write_text("VERSION = '6'\n")
    damaged = invoke(state, "verify", key, "--json")
    assert damaged.exit_code == 1
    assert json.loads(damaged.stdout)["error"]["code"] == "template"
    assert invoke(state, "remove", "mine").stdout == f"removed {key}\n"
    assert "no template is built" in invoke(state, "list").stderr


def test_the_command_takes_packages_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("tiny==1.0\n")
    state, file = tmp_path / "state", str(tmp_path / "requirements.txt")
    document = json.loads(invoke(state, "build", "-r", file, "--json").stdout)
    assert document["template"]["packages"] == ["tiny==1.0"]
    assert invoke(state, "build").exit_code == 2
    assert invoke(state, "build", "-r", file, "tiny").exit_code == 2
    assert "options are not read" in invoke(state, "build", "--", "-e.").stderr
