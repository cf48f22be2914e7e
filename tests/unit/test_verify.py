"""Signed results: whose they are, what was changed in them, and stock tools that agree."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result
from host import GROUPS
from plain_workplace import PlainWorkplace

from sandbox_sdk.cli.app import app
from sandbox_sdk.client import AsyncSandboxClient
from sandbox_sdk.crypto_utils import SigningKey, sign_manifest, verify_folder
from sandbox_sdk.crypto_utils.manifests import NAMESPACE
from sandbox_sdk.errors import IntegrityError
from sandbox_sdk.experiments.models.registry import ModelRegistry
from sandbox_sdk.experiments.results.export import export_run
from sandbox_sdk.experiments.run import run_experiment

KEY = SigningKey.generate()
FIRST = "artifacts/sha256"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with an artifact."""
    place = tmp_path_factory.mktemp("made")

    async def make() -> Path:
        result = await run_experiment(
            {"code": "print(1)", "files": {"a.txt": "x"}, "artifacts": ["*"]},
            PlainWorkplace(place / "work"),
            runs_dir=place / "runs",
            models=ModelRegistry(environ={}),
        )
        return place / "runs" / result.id

    return anyio.run(make)


@pytest.fixture
def export(made: Path, tmp_path: Path) -> Path:
    return export_run(made, tmp_path / "results", partial(sign_manifest, KEY))


def invoke(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--state-dir", str(state), *arguments])


def test_signed_results_are_verified_with_the_right_key(export: Path) -> None:
    found = verify_folder(export, [SigningKey.generate().public, KEY.public])
    assert (found.status, found.ok, found.signer) == ("verified", True, KEY.public)


def test_a_key_that_is_not_pinned_proves_nothing(export: Path) -> None:
    found = verify_folder(export)
    assert (found.status, found.ok, found.signer) == ("unpinned", False, KEY.public)
    found = verify_folder(export, [SigningKey.generate().public])
    assert (found.status, found.ok) == ("wrong_signer", False)
    assert KEY.public.fingerprint in found.detail


def test_results_that_nobody_signed_are_unsigned(made: Path, tmp_path: Path) -> None:
    found = verify_folder(export_run(made, tmp_path / "results"), [KEY.public])
    assert (found.status, found.ok, found.signer) == ("unsigned", False, None)


def test_stock_tools_agree(export: Path, tmp_path: Path) -> None:
    signers = tmp_path / "signers"
    signers.write_text(f'me namespaces="{NAMESPACE}" {KEY.public.to_text()}\n')
    about = ("-f", str(signers), "-I", "me", "-n", NAMESPACE, "-s", "MANIFEST.json.sig")
    command = ["ssh-keygen", "-Y", "verify", *about]

    def accepted() -> bool:
        data = (export / "MANIFEST.json").read_bytes()
        done = subprocess.run(command, input=data, cwd=export, check=False, capture_output=True)
        return done.returncode == 0

    assert accepted()
    checked = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=export, check=False)
    assert checked.returncode == 0
    (export / "MANIFEST.json").write_bytes((export / "MANIFEST.json").read_bytes() + b" ")
    assert not accepted()


def append(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.write(b" ")

    return change


def write(name: str, data: bytes = b"x") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return change


def swap_bit(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return change


def link(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return change


def linked_folder(folder: Path) -> None:
    (folder / "artifacts").rename(folder.parent / "artifacts")
    (folder / "artifacts").symlink_to(folder.parent / "artifacts")


def pipe(folder: Path) -> None:
    (folder / "result.json").unlink()
    os.mkfifo(folder / "result.json")


def resign(folder: Path) -> None:
    """Change a file, its digest and the sums, as one who has no key can."""
    data = b"{}"
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    entry = manifest["files"]["result.json"]
    entry["sha256"], entry["size_bytes"] = hashlib.sha256(data).hexdigest(), len(data)
    (folder / "result.json").write_bytes(data)
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (append("events.jsonl"), "events.jsonl"),
    (swap_bit("result.json"), "result.json"),
    (write("plan.json", b""), "plan.json"),
    (write("added.txt"), "added.txt"),
    (write("artifacts/added.txt"), "artifacts/added.txt"),
    (lambda folder: (folder / "trials.csv").unlink(), "trials.csv"),
    (link("lock.json"), "lock.json"),
    (linked_folder, "artifacts"),
    (pipe, "result.json"),
    (append("MANIFEST.json"), "MANIFEST.json"),
    (resign, "MANIFEST.json"),
    (lambda folder: (folder / "MANIFEST.json").unlink(), "MANIFEST.json"),
    (write("MANIFEST.json.sig"), "MANIFEST.json.sig"),
    (swap_bit("MANIFEST.json.sig"), "MANIFEST.json"),
    (append("SHA256SUMS"), "SHA256SUMS"),
]


@pytest.mark.parametrize(("change", "wrong"), CHANGES)
def test_the_first_wrong_file_is_named(
    export: Path, change: Callable[[Path], None], wrong: str
) -> None:
    change(export)
    found = verify_folder(export, [KEY.public])
    assert (found.status, found.ok) == ("changed", False)
    assert found.wrong is not None
    assert found.wrong.startswith(wrong)
    assert found.detail.startswith(found.wrong)


def test_no_changed_byte_of_any_file_goes_unnoticed(export: Path) -> None:
    dice = random.Random()
    for path in sorted(path for path in export.rglob("*") if path.is_file()):
        good = path.read_bytes()
        for at in dice.sample(range(len(good)), min(len(good), 12)):
            bad = bytearray(good)
            bad[at] ^= 1 << dice.randrange(8)
            path.write_bytes(bad)
            found = verify_folder(export, [KEY.public])
            assert not found.ok, (path, at)
        path.write_bytes(good)
    assert verify_folder(export, [KEY.public]).ok


def test_of_several_wrong_files_the_first_by_name_is_told(export: Path) -> None:
    for name in ("trials.csv", "plan.json", "result.json"):
        append(name)(export)
    assert verify_folder(export, [KEY.public]).wrong == "plan.json"


def test_taking_the_signature_away_is_no_way_around(export: Path) -> None:
    (export / "MANIFEST.json.sig").unlink()
    assert not verify_folder(export, [KEY.public]).ok


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b'{"files": []}',
        b'{"files": {"a": 1}}',
        b'{"files": {"../x": {"size_bytes": 1, "sha256": "0"}}}',
        b"[" * 100_000,
    ],
)
def test_a_manifest_of_an_attacker_ends_in_words(export: Path, manifest: bytes) -> None:
    (export / "MANIFEST.json").write_bytes(manifest)
    (export / "MANIFEST.json.sig").write_bytes(sign_manifest(KEY, manifest))
    assert verify_folder(export, [KEY.public]).status == "changed"


def test_what_is_no_folder_cannot_be_verified(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no folder"):
        verify_folder(tmp_path / "none")


def test_the_command_verifies_all_exports_of_a_folder(export: Path, tmp_path: Path) -> None:
    state, line = tmp_path / "state", KEY.public.to_text()
    done = invoke(state, "verify", "--key", line, str(export.parent))
    assert done.exit_code == 0
    assert done.stdout.startswith(f"verified: {export}: ")
    (tmp_path / "key.pub").write_text(f"# mine\n\n{line} me\n")
    done = invoke(state, "verify", "--key", str(tmp_path / "key.pub"), str(export), "--json")
    (told,) = json.loads(done.stdout)["verified"]
    assert (told["status"], told["signer"]) == ("verified", KEY.public.fingerprint)
    done = invoke(state, "verify", str(export))
    assert done.exit_code == 1
    assert done.stdout.startswith("unpinned: ")
    append("result.json")(export)
    done = invoke(state, "verify", "--key", line, str(export))
    assert done.exit_code == 1
    assert "result.json: is not what the manifest says" in done.stdout
    for wrong in ("nothing-there", str(tmp_path)):
        assert "neither a public key" in invoke(state, "verify", "--key", wrong, str(export)).stderr
    assert not state.exists()  # looking makes nothing


def exported(state: Path, target: Path, level: str) -> Path:
    async def make() -> Path:
        async with AsyncSandboxClient(state_dir=state) as client:
            sandbox = await client.create_sandbox("one", security_level=level)
            await sandbox.run_experiment({"code": "print(6 * 7)"})
            (folder,) = await sandbox.export_results(target)
            assert await sandbox.export_results(target) == [folder]
            return folder

    return anyio.run(make)


def test_results_are_signed_once_there_is_a_master_key(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert verify_folder(exported(state, tmp_path / "before", "medium")).status == "unsigned"
    assert invoke(state, "keys", "create").exit_code == 0
    folder = exported(state, tmp_path / "after", "medium")
    assert invoke(state, "verify", str(folder)).exit_code == 0
    public = json.loads(invoke(state, "keys", "export", "--public", "--json").stdout)
    assert verify_folder(folder).signer is not None
    assert invoke(state, "keys", "rotate").exit_code == 0
    again = exported(state, tmp_path / "rotated", "medium")
    stranger = tmp_path / "stranger"
    done = invoke(stranger, "verify", "--key", public["public_key"], str(again))
    assert done.exit_code == 0, done.output


@pytest.mark.skipif(not GROUPS, reason="high is refused here, which tests/e2e tests")
def test_at_high_a_missing_key_is_made_and_said(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.warns(UserWarning, match=r"keys/local\.key: keep a copy"):
        folder = exported(state, tmp_path / "results", "high")
    assert invoke(state, "verify", str(folder)).exit_code == 0
