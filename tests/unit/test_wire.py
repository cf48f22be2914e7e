"""Values and errors cross the wire unchanged, and nothing is guessed on the way in."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import pytest

from sandbox_sdk import errors
from sandbox_sdk.errors import ConfigError, ProtocolError, SandboxError, StateError
from sandbox_sdk.values import Ended, EndKind, Resources, SandboxInfo, SandboxSpec, Usage, Wall
from sandbox_sdk.wire import ERRORS, error_from_json, error_to_json, from_json, to_json

# Any: each fact has its own type.
FACTS: dict[str, Any] = {
    "sandbox_id": "sb_1",
    "faults": ("a: wrong", "b: wrong"),
    "owner_pid": 7,
    "ended": Ended(kind=EndKind.OOM, limit="memory", limit_value=1.5),
    "stdout": "out",
    "stderr": "err",
    "path": "/workspace/a",
    "errno": 28,
    "level": "high",
    "walls": (Wall(name="seccomp", in_force=False, fix="a newer kernel"),),
    "model": "openai/x",
    "provider_status": 429,
    "request_id": "req",
    "retryable": True,
    "retry_after": 2.5,
    "parameter": "seed",
    "unbilled": True,
    "reason": "expired",
    "rule": "students",
    "template": "0123456789abcdef0123456789abcdef",
    "key_id": "0123456789abcdef",
    "output": "No space left on device",
}


def names(cls: type[SandboxError]) -> set[str]:
    return set(cls.__init__.__kwdefaults__ or {})


def filled(cls: type[SandboxError]) -> SandboxError:
    """Return an error with a telling value in every fact that its class has."""
    return cls("why", **{name: FACTS[name] for name in names(cls)})


def facts(error: SandboxError) -> dict[str, object]:
    return {name: getattr(error, name) for name in names(type(error))}


def test_the_table_holds_every_error_class_under_a_code_of_its_own() -> None:
    classes = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, SandboxError)
    }
    assert set(ERRORS.values()) == classes
    assert len({cls.code for cls in classes}) == len(classes) > 20


@pytest.mark.parametrize("cls", ERRORS.values(), ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling_with_all_its_facts(cls: type[SandboxError]) -> None:
    error = filled(cls)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.message, str(copy)) == (cls, "why", "why")
    assert facts(copy) == facts(error)


@pytest.mark.parametrize("cls", ERRORS.values(), ids=lambda cls: cls.__name__)
def test_every_error_survives_json_with_all_its_facts(cls: type[SandboxError]) -> None:
    error = filled(cls)
    copy = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert (type(copy), copy.message) == (cls, "why")
    assert facts(copy) == facts(error)


def test_a_code_is_never_a_name_to_import() -> None:
    error = error_from_json({"code": "os.system", "message": "m", "sandbox_id": "sb_1"})
    assert type(error) is SandboxError
    assert error.sandbox_id == "sb_1"


@pytest.mark.parametrize(
    "data", [None, [], {}, {"code": "busy"}, {"code": "busy", "message": "m", "owner_pid": "7"}]
)
def test_a_damaged_error_is_a_protocol_error(data: object) -> None:
    with pytest.raises(ProtocolError):
        error_from_json(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_bytes", "7"),
        ("memory_bytes", 1.9),
        ("memory_bytes", 7.0),
        ("memory_bytes", True),
        ("cpu", True),
        ("cpu", "1"),
        ("cpu", float("nan")),
        ("cpu", float("inf")),
        ("cpu", 10**400),
        ("cpu", None),
    ],
)
def test_nothing_is_converted_silently(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        from_json(Resources, {field: value})


def test_a_whole_number_is_a_valid_float() -> None:
    cpu = from_json(Resources, {"cpu": 2}).cpu
    assert (cpu, type(cpu)) == (2.0, float)


@pytest.mark.parametrize("value", ["false", 0, 1, None])
def test_only_true_and_false_are_truth_values(value: object) -> None:
    with pytest.raises(ConfigError, match=r"internal: must be true or false"):
        from_json(SandboxSpec, {"name": "x", "internal": value})


def test_all_faults_come_at_once_with_their_paths() -> None:
    data = {
        "id": 1,
        "spec": {"nam": "x", "resources": {"cpu": "1"}, "files": {"a": "not base64!"}},
        "state": "runing",
    }
    with pytest.raises(ConfigError) as caught:
        from_json(SandboxInfo, data, path="sandbox")
    assert sorted(caught.value.faults) == [
        "sandbox.id: must be text, not 1",
        "sandbox.spec.files.a: must be base64",
        'sandbox.spec.nam: unknown; did you mean "name"?',
        "sandbox.spec.name: is required",
        "sandbox.spec.resources.cpu: must be a finite number, not '1'",
        "sandbox.state: no such word 'runing'; did you mean \"running\"?",
    ]


@pytest.mark.parametrize("data", [None, [], "x", 3, {1: 2}])
def test_what_is_no_mapping_is_one_fault(data: object) -> None:
    with pytest.raises(ConfigError, match="must be a mapping"):
        from_json(SandboxInfo, data)


@pytest.mark.parametrize("mounts", ["ab", {"a": 1}, 3])
def test_text_is_no_list(mounts: object) -> None:
    with pytest.raises(ConfigError, match="mounts: must be a list"):
        from_json(SandboxSpec, {"name": "x", "mounts": mounts})


def test_lenient_ignores_what_a_newer_version_added_but_checks_types() -> None:
    newer = {**to_json(Usage(sandbox_id="sb_1", pids=2)), "gpu_seconds": 3}
    assert from_json(Usage, newer, lenient=True) == Usage(sandbox_id="sb_1", pids=2)
    with pytest.raises(ConfigError, match="gpu_seconds: unknown"):
        from_json(Usage, newer)
    with pytest.raises(ConfigError, match="pids"):
        from_json(Usage, {**newer, "pids": "2"}, lenient=True)


def test_an_error_number_is_kept_as_the_kernel_knows_it() -> None:
    error: OSError = pickle.loads(pickle.dumps(StateError("full", errno=28)))
    assert error.errno == 28


def test_importing_the_module_does_not_load_cattrs() -> None:
    code = "import sys, sandbox_sdk.wire; sys.exit('cattrs' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
