"""Settings come from four places, and what is wrong or idle is said."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from sandbox_sdk.auth import local_status
from sandbox_sdk.config import Settings, UidRange
from sandbox_sdk.config_file import DEEPEST, LARGEST_FILE
from sandbox_sdk.config_keys import KEYS
from sandbox_sdk.crypto_utils import KeySource, MasterKey
from sandbox_sdk.errors import ConfigError
from sandbox_sdk.values import Resources

KEY = MasterKey.generate().to_text()

DOCUMENTED = """
api_key: your-api-key
client_id: your-client-id
client_secret: your-client-secret
security:
  level: high
  encryption_key: your-encryption-key
  enable_audit_logs: true
default_resources:
  memory: 1GB
  cpu: 1
orchestrator:
  auto_scaling: true
  monitoring_interval: 60
"""

DOCUMENTED_VARIABLES = {
    "SANDBOX_API_KEY": "your-api-key",
    "SANDBOX_CLIENT_ID": "your-client-id",
    "SANDBOX_CLIENT_SECRET": "your-client-secret",
    "SANDBOX_SECURITY_LEVEL": "high",
    "SANDBOX_ENCRYPTION_KEY": "your-encryption-key",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder, with an empty config folder and environment."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in [name for name in os.environ if name.startswith("SANDBOX_")]:
        monkeypatch.delenv(name)
    return tmp_path


def write(text: str, path: str = "config.yaml") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_defaults_need_nothing_and_warn_of_nothing() -> None:
    assert Settings.load() == Settings()


def test_the_documented_file_works() -> None:
    write(DOCUMENTED)
    with pytest.warns(UserWarning, match="not needed|placeholder") as told:
        found = Settings.load()
    assert found.security_level == "high"
    assert found.resources == Resources(memory_bytes=10**9, cpu=1.0)
    assert (found.enable_audit_logs, found.auto_scaling, found.monitoring_interval) == (
        True,
        True,
        60.0,
    )
    assert len(told) == 2
    assert any("placeholder" in str(one.message) for one in told)
    assert found.encryption_key is None


def test_the_documented_variables_work() -> None:
    with pytest.warns(UserWarning, match="not needed|placeholder"):
        found = Settings.load(environ=DOCUMENTED_VARIABLES)
    assert found.security_level == "high"
    assert found.client_secret == "your-client-secret"


def test_the_documented_auth_config_works_on_this_machine_with_one_warning() -> None:
    auth = {"api_key": "your-api-key", "client_id": "your-client-id", "client_secret": "x"}
    with pytest.warns(UserWarning, match="api_key, client_id, client_secret: not needed") as told:
        found = Settings.load(auth)
    assert len(told) == 1
    assert found.api_key == "your-api-key"


def test_an_argument_goes_before_a_variable_before_the_file_before_the_default() -> None:
    write("{timeout: 1, idle_timeout: 1, local_model: file}")
    environ = {"SANDBOX_TIMEOUT": "2", "SANDBOX_IDLE_TIMEOUT": "2"}
    found = Settings.load(config={"timeout": 3}, environ=environ)
    assert found.timeout == 3.0  # both lower sources say less; the mapping is an argument
    assert found.idle_timeout == 2.0
    found = Settings.load(environ=environ)
    assert (found.timeout, found.idle_timeout) == (2.0, 2.0)


def test_a_mapping_goes_over_the_file() -> None:
    write("{timeout: 1, local_model: file}")
    found = Settings.load(config={"timeout": 3})
    assert (found.timeout, found.local_model) == (3.0, "file")


def test_the_file_in_charge() -> None:
    own = write("local_model: own", os.environ["XDG_CONFIG_HOME"] + "/sandbox-sdk/config.yaml")
    assert Settings.load().local_model == "own"
    write("local_model: here")
    assert Settings.load().local_model == "here"
    named = write("local_model: named", "named.yaml")
    assert Settings.load(environ={"SANDBOX_CONFIG": str(named)}).local_model == "named"
    environ = {"SANDBOX_CONFIG": str(named)}
    assert Settings.load(config=own, environ=environ).local_model == "own"


def test_a_config_file_of_another_program_is_passed_over() -> None:
    write("{database: {host: x}, logging: debug}")
    assert Settings.load() == Settings()


def test_a_file_with_one_key_of_ours_is_ours() -> None:
    write("{timeout: 5, databse: x}")
    with pytest.raises(ConfigError, match=r"databse: unknown; .*\(from ./config.yaml\)"):
        Settings.load()


@pytest.mark.parametrize("text", ["", "# nothing\n", "security:\n", "api_key:\n"])
def test_what_is_left_empty_is_not_set(text: str) -> None:
    write(text)
    assert Settings.load(environ={"SANDBOX_API_KEY": "", "SANDBOX_CONFIG": ""}) == Settings()


def test_no_bound_can_be_written() -> None:
    write("timeout: none")
    assert Settings.load().timeout is None
    write("timeout: null")
    assert Settings.load().timeout is None
    assert Settings.load(environ={"SANDBOX_TIMEOUT": "none"}).timeout is None


def test_every_key_has_a_variable_that_is_read() -> None:
    values = {
        "security.level": "low",
        "security.encryption_key": KEY,
        "security.enable_audit_logs": "no",
        "security.audit_keep_days": "30",
        "orchestrator.auto_scaling": "no",
        "default_resources.cpu": "0.5",
    }
    documented = {
        "security.encryption_key": "SANDBOX_ENCRYPTION_KEY",
        "security.encryption_key_file": "SANDBOX_ENCRYPTION_KEY_FILE",
        "security.enable_audit_logs": "SANDBOX_ENABLE_AUDIT_LOGS",
        "security.audit_keep_days": "SANDBOX_AUDIT_KEEP_DAYS",
    }
    environ = {
        documented.get(path, f"SANDBOX_{path.upper().replace('.', '_')}"): values.get(path, "99MB")
        for path in KEYS
        if KEYS[path].parse.__class__.__name__ != "partial" or path in values
    }
    environ |= {"SANDBOX_TIMEOUT": "9", "SANDBOX_IDLE_TIMEOUT": "9"}
    environ |= {"SANDBOX_UID_RANGE_FIRST": "100000", "SANDBOX_UID_RANGE_COUNT": "9"}
    environ |= {"SANDBOX_RUNTIME": "bubblewrap", "SANDBOX_ORCHESTRATOR_POOL_SIZE": "9"}
    environ |= {"SANDBOX_ORCHESTRATOR_MAX_CONCURRENCY": "9"}
    environ |= {"SANDBOX_ORCHESTRATOR_RESERVE": "limit"}
    environ |= {"SANDBOX_ORCHESTRATOR_MONITORING_INTERVAL": "9"}
    environ |= {"SANDBOX_DEFAULT_RESOURCES_MEMORY": "99MB"}
    del environ["SANDBOX_ENDPOINT"]
    with pytest.warns(UserWarning, match="not needed|without effect"):
        found = Settings.load(environ=environ)
    assert found.resources == Resources(memory_bytes=99 * 10**6, cpu=0.5)
    assert found.uid_range == UidRange(first=100_000, count=9)
    assert (found.timeout, found.idle_timeout, found.monitoring_interval) == (9.0, 9.0, 9.0)
    assert (found.max_concurrency, found.reserve, found.auto_scaling) == (9, "limit", False)
    assert found.secrets == {"99MB", KEY}
    assert found.security_level == "low"
    assert found.state_dir == Path("99MB").absolute()


def test_a_misspelt_variable_is_refused_and_another_programs_is_not() -> None:
    Settings.load(environ={"SANDBOX_HOST": "x", "SANDBOX_": "y", "SANDBOXED": "z"})
    with pytest.raises(ConfigError, match='did you mean "SANDBOX_SECURITY_LEVEL"'):
        Settings.load(environ={"SANDBOX_SECURTY_LEVEL": "high"})


def test_every_fault_comes_at_once_with_its_path_and_source() -> None:
    write("{timeot: 5, securtiy: {level: x}, default_resources: {memory: 2 potatoes, gpu: 1}}")
    with pytest.raises(ConfigError) as caught:
        Settings.load(
            {"api_kye": "x"},
            orchestrator={"auto_scaling": 7},
            environ={"SANDBOX_SECURITY_LEVEL": "hgih"},
        )
    assert [(f.split(":")[0], f.rpartition(" (from ")[2]) for f in caught.value.faults] == [
        ("timeot", "./config.yaml)"),
        ("securtiy", "./config.yaml)"),
        ("default_resources.gpu", "./config.yaml)"),
        ("auth_config.api_kye", 'auth_config.api_kye: unknown; did you mean "api_key"?'),
        ("default_resources.memory", "./config.yaml)"),
        ("security.level", "SANDBOX_SECURITY_LEVEL)"),
        ("orchestrator.auto_scaling", "the argument orchestrator)"),
    ]


def test_an_endpoint_is_refused_and_so_are_placeholders_then() -> None:
    write("endpoint: https://api.sandbox.example.com\n" + DOCUMENTED)
    with pytest.raises(ConfigError) as caught:
        Settings.load()
    assert [line.split(":")[0] for line in caught.value.faults] == [
        "endpoint",
        "api_key",
        "client_id",
        "client_secret",
    ]
    assert "on this machine only" in str(caught.value)


def test_an_endpoint_is_refused_from_anywhere() -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        Settings.load(endpoint="https://x.example")
    with pytest.raises(ConfigError, match="this machine only"):
        Settings.load(environ={"SANDBOX_ENDPOINT": "https://x.example"})


def test_what_is_recorded_is_said_or_left_to_the_level() -> None:
    assert Settings.load().enable_audit_logs is None
    for said in (True, False):
        settings = Settings.load(config={"security": {"enable_audit_logs": said}})
        assert settings.enable_audit_logs is said


@pytest.mark.parametrize(
    "key",
    ["zz", "change-me-please", "password12345", pytest.param(KEY[:-1], id="cut"), "<your key>"],
)
def test_a_key_that_can_be_guessed_or_was_cut_is_refused(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(environ={"SANDBOX_ENCRYPTION_KEY": key})
    (fault,) = caught.value.faults
    assert fault.startswith("security.encryption_key: ")
    assert fault.endswith("(from SANDBOX_ENCRYPTION_KEY)")
    assert key not in fault


def test_the_placeholder_of_the_documentation_is_never_a_key() -> None:
    with pytest.warns(UserWarning, match="placeholder of the documentation"):
        found = Settings.load(config={"security": {"encryption_key": "your-encryption-key"}})
    assert found.key_source == KeySource()
    assert found.secrets == frozenset()


def test_a_key_given_as_an_argument_goes_before_a_key_file_before_a_variable() -> None:
    other = MasterKey.generate().to_text()
    environ = {"SANDBOX_ENCRYPTION_KEY": KEY}
    assert Settings.load(environ=environ).key_source == KeySource(text=KEY)
    environ["SANDBOX_ENCRYPTION_KEY_FILE"] = "/k"
    assert Settings.load(environ=environ).key_source == KeySource(file=Path("/k"))
    found = Settings.load(config={"security": {"encryption_key": other}}, environ=environ)
    assert found.key_source == KeySource(text=other)


def test_a_file_with_a_key_that_others_may_read_is_told() -> None:
    file = write(f"security: {{encryption_key: {KEY}}}")
    file.chmod(0o600)
    assert Settings.load().key_source == KeySource(text=KEY)
    file.chmod(0o644)
    with pytest.warns(UserWarning, match="others may read it; run: chmod 600"):
        Settings.load()


def test_what_is_switched_off_needs_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Settings.load(environ={"SANDBOX_ENABLE_AUDIT_LOGS": "false"})


def test_secrets_are_in_no_repr_and_no_error() -> None:
    hush = "hush-very-secret"
    with pytest.warns(UserWarning, match="not needed|without effect"):
        found = Settings.load(
            {"api_key": hush, "client_secret": hush + "2"},
            config={"security": {"encryption_key": hush + "3, which is long"}},
        )
    assert found.secrets == {hush, hush + "2", hush + "3, which is long"}
    assert "hush" not in repr(found)
    for wrong in (f"{hush}\n{hush}", [hush], {hush: hush}):
        with pytest.raises(ConfigError) as caught:
            Settings.load({"api_key": wrong}, config={"client_secret": [hush]})
        assert "hush" not in str(caught.value) + repr(caught.value.faults)


@pytest.mark.parametrize(
    "text",
    [
        "api_key: [hush",
        "api_key: hush\napi_key: hush2",
        "api_key: &a hush\nclient_id: *a",
        "api_key: !!python/name:os.system hush",
        "api_key: !!timestamp hush",
        "--- {api_key: hush}\n--- {api_key: hush}",
        "api_key: \x01hush",
        "- hush",
        "hush",
        "api_key: " + "[" * (DEEPEST + 1) + "hush" + "]" * (DEEPEST + 1),
        "[" * 20_000,
        "a: 0o9 hush\nb: 2024-13-99",
        "api_key: hush\n" + "#" * LARGEST_FILE,
    ],
)
def test_a_bad_file_is_one_error_that_names_it_and_holds_nothing_of_it(text: str) -> None:
    named = write(text, "bad.yaml")
    with pytest.raises(ConfigError, match=r"bad\.yaml") as caught:
        Settings.load(config=named)
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_cannot_be_read_is_a_config_error(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read: No such file"):
        Settings.load(environ={"SANDBOX_CONFIG": str(home / "missing.yaml")})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Settings.load(config=home)
    Path("bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Settings.load(config="bytes.yaml")


def test_a_pipe_or_an_endless_device_does_not_hang() -> None:
    os.mkfifo("pipe.yaml")
    assert Settings.load(config="pipe.yaml") == Settings()
    assert Settings.load(config="/dev/null") == Settings()
    with pytest.raises(ConfigError, match="larger than"):
        Settings.load(config="/dev/zero")


@pytest.mark.parametrize("wrong", [{"first": 2**32 - 1}, {"first": 2**32 - 5, "count": 9}])
def test_user_ids_end_where_the_kernels_do(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"^uid_range"):
        Settings.load(config={"uid_range": wrong})


@pytest.mark.parametrize("wrong", [5, [], True])
def test_arguments_of_a_wrong_kind_are_config_errors(wrong: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(
            wrong,  # type: ignore[arg-type]
            config=wrong,  # type: ignore[arg-type]
            state_dir=wrong,  # type: ignore[arg-type]
            orchestrator=wrong,  # type: ignore[arg-type]
        )
    assert len(caught.value.faults) == 4


def test_the_state_folder_is_absolute_and_knows_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert Settings.load(state_dir="~/state").state_dir == Path("/somewhere/state")
    assert Settings.load(state_dir=Path("state")).state_dir == Path.cwd() / "state"


def test_the_local_answer_says_that_credentials_prove_nothing() -> None:
    status = local_status(Settings(api_key="hush-very-secret"))
    assert (status.authenticated, status.method, status.scopes) == (True, "local", ("*",))
    assert status.subject
    assert "ignored" in status.detail
    assert "hush" not in repr(status)
    assert "ignored" not in local_status(Settings()).detail
