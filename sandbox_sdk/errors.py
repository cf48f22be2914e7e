"""Every exception of the SDK, under one root.

    SandboxError
    ├── ConfigError (ValueError)            what the caller wrote is wrong
    ├── SandboxNotFound (LookupError)       no sandbox, run or model file of that name
    ├── SandboxBusy                         another live process holds the sandbox or run
    ├── AdmissionTimeout (TimeoutError)     no place for a sandbox in time
    ├── SandboxClosed                       used after ``cleanup()``, ``delete`` or ``close()``
    ├── SandboxEnded                        a running sandbox ended, with how it ended
    │   ├── LifetimeExceeded (TimeoutError)     its ``timeout``
    │   └── IdleTimeout (TimeoutError)          its ``idle_timeout``
    ├── CommandFailed                       raised by ``check()`` of a command's or code's result
    │   └── CallTimeout (TimeoutError)          that call's own ``timeout``
    ├── FileError (OSError)                 a file operation inside the sandbox failed
    ├── IsolationError (PermissionError)    a promised wall cannot be had on this host
    ├── PolicyDenied (PermissionError)      a rule of ``policies`` does not allow it
    ├── LaunchError                         a launcher or sandbox did not start
    ├── ProtocolError                       bytes from a sandbox broke the protocol
    ├── TemplateError                       a template cannot be built, found, used or removed
    ├── StateError (OSError)                the state folder could not be read or written
    ├── ExportError (OSError)               results could not be exported
    ├── IntegrityError (ValueError)         sealed or signed bytes are not what was written
    ├── KeyNotFound (LookupError)           no key here opens what was sealed
    ├── AuthenticationError (PermissionError)   who calls was not proven
    ├── CredentialNotFound (LookupError)    no tenant, key, client or session of that id
    ├── NotPermitted (PermissionError)      the caller may not, or the server does not offer it
    ├── RequestRefused (ValueError)         a server could not make sense of a request
    ├── VersionMismatch                     client and server speak different versions
    ├── QuotaExceeded                       the tenant has as much as it may have on the server
    ├── ServerUnavailable (ConnectionError) nothing answered at the endpoint, or it is closing
    ├── IdempotencyMismatch (ValueError)    an idempotency key came again with another request
    ├── IdempotencyInFlight                 the first request of an idempotency key still runs
    └── ModelError                          a model call failed
        ├── ModelAuthError (PermissionError)    no key, or one that was refused
        ├── ModelNotFound (LookupError)         unknown, retired or not installed
        ├── ModelUnavailable (ConnectionError)  nothing answered at the address
        ├── ModelTimeout (TimeoutError)         no complete answer in time
        ├── ModelRateLimited                    refused for load or quota
        ├── ReplayMiss (LookupError)            a cassette holds no answer to the call
        └── UnsupportedParameter (ValueError)   the model refuses a parameter

Each class has a stable ``code``; ``sandbox_sdk.wire`` holds the closed table back from a code to
its class. The message says what happened, why, and what to do. All classes survive pickling: the
message is the only positional argument, the facts are keyword attributes with defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from sandbox_sdk.values import Ended, Wall


class SandboxError(Exception):
    """The root of every error that the SDK raises on purpose.

    Attributes:
        code: A stable word for logs, the wire and programs.
        message: What happened, why, and what to do.
        sandbox_id: The sandbox it is about, where there is one.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, sandbox_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.sandbox_id = sandbox_id

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # OSError keeps errno outside __dict__, where its own __reduce__ forgets it.
        facts = self.__dict__
        if isinstance(self, OSError):
            facts = {**facts, "errno": self.errno}
        return type(self), (self.message,), facts


class ConfigError(SandboxError, ValueError):
    """What the caller wrote is wrong; nothing was created.

    Attributes:
        faults: One line per fault, each beginning with the field's path.
    """

    code = "config"

    def __init__(self, message: str, *, faults: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class SandboxNotFound(SandboxError, LookupError):
    """There is no sandbox, or no run, with this id in the state folder."""

    code = "not_found"


class SandboxBusy(SandboxError):
    """Another live process holds the sandbox, or drives the run.

    Attributes:
        owner_pid: The process that holds it.
    """

    code = "busy"

    def __init__(
        self, message: str, *, sandbox_id: str | None = None, owner_pid: int | None = None
    ) -> None:
        super().__init__(message, sandbox_id=sandbox_id)
        self.owner_pid = owner_pid


class AdmissionTimeout(SandboxError, TimeoutError):
    """There was no place for a sandbox in time: others held all of them."""

    code = "admission_timeout"


class SandboxClosed(SandboxError):
    """The sandbox was cleaned up or deleted, or its client was closed."""

    code = "closed"


class SandboxEnded(SandboxError):
    """A running sandbox ended before or during the call.

    Attributes:
        ended: How it ended, decided by the host.
    """

    code = "sandbox_ended"

    def __init__(
        self, message: str, *, sandbox_id: str | None = None, ended: Ended | None = None
    ) -> None:
        super().__init__(message, sandbox_id=sandbox_id)
        self.ended = ended


class LifetimeExceeded(SandboxEnded, TimeoutError):
    """The sandbox lived as long as its ``timeout`` allows."""

    code = "lifetime_exceeded"


class IdleTimeout(SandboxEnded, TimeoutError):
    """The sandbox had no call for as long as its ``idle_timeout`` allows."""

    code = "idle_timeout"


class CommandFailed(SandboxError):
    """A command or code did not end well; raised by ``check()`` of its result only.

    Attributes:
        ended: How it ended.
        stdout: What it wrote to standard output, as text.
        stderr: What it wrote to standard error, as text.
    """

    code = "command_failed"

    def __init__(
        self,
        message: str,
        *,
        sandbox_id: str | None = None,
        ended: Ended | None = None,
        stdout: str = "",
        stderr: str = "",
    ) -> None:
        super().__init__(message, sandbox_id=sandbox_id)
        self.ended = ended
        self.stdout = stdout
        self.stderr = stderr


class CallTimeout(CommandFailed, TimeoutError):
    """A command or code ran longer than its call's ``timeout``; its processes were killed."""

    code = "call_timeout"


class FileError(SandboxError, OSError):
    """A file operation inside the sandbox failed.

    Attributes:
        path: The path inside the sandbox.
        errno: The kernel's error number, for example ``errno.ENOENT``.
    """

    code = "file"

    def __init__(
        self,
        message: str,
        *,
        sandbox_id: str | None = None,
        path: str | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(message, sandbox_id=sandbox_id)
        self.path = path
        self.errno = errno


class IsolationError(SandboxError, PermissionError):
    """A wall that the security level promises cannot be had on this host.

    Attributes:
        level: The security level that was asked for.
        walls: The missing walls, each with the reason and the fix.
    """

    code = "isolation"

    def __init__(
        self,
        message: str,
        *,
        sandbox_id: str | None = None,
        level: str | None = None,
        walls: tuple[Wall, ...] = (),
    ) -> None:
        super().__init__(message, sandbox_id=sandbox_id)
        self.level = level
        self.walls = walls


class PolicyDenied(SandboxError, PermissionError):
    """An operator's rule does not allow it; nothing was done, or the sandbox was ended.

    Attributes:
        rule: The name of the rule.
    """

    code = "policy_denied"

    def __init__(self, message: str, *, rule: str = "", sandbox_id: str | None = None) -> None:
        super().__init__(message, sandbox_id=sandbox_id)
        self.rule = rule


class LaunchError(SandboxError):
    """The launcher or a sandbox did not start, or did not report in time."""

    code = "launch"


class ProtocolError(SandboxError):
    """Bytes that came out of a sandbox broke the protocol; the sandbox was ended."""

    code = "protocol"


class TemplateError(SandboxError):
    """A template could not be built, found, used or removed.

    Attributes:
        template: Its key or name, where it has one.
        output: The last words of the program that was to build it.
    """

    code = "template"

    def __init__(
        self, message: str, *, template: str | None = None, output: str | None = None
    ) -> None:
        super().__init__(message)
        self.template = template
        self.output = output


class StateError(SandboxError, OSError):
    """The state folder could not be read or written: disk full, damaged, or not allowed.

    Attributes:
        errno: The kernel's error number, where there is one.
    """

    code = "state"

    def __init__(
        self, message: str, *, sandbox_id: str | None = None, errno: int | None = None
    ) -> None:
        super().__init__(message, sandbox_id=sandbox_id)
        self.errno = errno


class ExportError(SandboxError, OSError):
    """Results could not be exported; what stood at the target is unchanged.

    Attributes:
        path: The target.
    """

    code = "export"

    def __init__(
        self, message: str, *, sandbox_id: str | None = None, path: str | None = None
    ) -> None:
        super().__init__(message, sandbox_id=sandbox_id)
        self.path = path


class IntegrityError(SandboxError, ValueError):
    """Sealed or signed bytes are not what was written.

    They were changed, moved, cut short, or belong to another key.

    Attributes:
        path: The file it is about, where it is about one.
    """

    code = "integrity"

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class KeyNotFound(SandboxError, LookupError):
    """No key that is configured here opens what was sealed.

    Attributes:
        key_id: The id of the key that would.
    """

    code = "key_not_found"

    def __init__(self, message: str, *, key_id: str | None = None) -> None:
        super().__init__(message)
        self.key_id = key_id


class AuthenticationError(SandboxError, PermissionError):
    """Who calls was not proven, and nothing was done.

    Attributes:
        reason: ``missing``, ``invalid``, ``expired``, ``revoked``, ``rate_limited`` or
            ``unavailable``, which is no answer of the server's.
        retry_after: Seconds to wait before another try, where it is ``rate_limited``.
    """

    code = "authentication"

    def __init__(
        self, message: str, *, reason: str = "invalid", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class CredentialNotFound(SandboxError, LookupError):
    """There is no tenant, key, client or session of this id that the caller may see."""

    code = "credential_not_found"


class NotPermitted(SandboxError, PermissionError):
    """The caller may not do this, or the server's own settings do not offer it."""

    code = "not_permitted"


class RequestRefused(SandboxError, ValueError):
    """A server could not make sense of a request: no such route, too large, not JSON."""

    code = "request_refused"


class VersionMismatch(SandboxError):
    """Client and server speak different versions of the protocol; upgrade the older one."""

    code = "version_mismatch"


class QuotaExceeded(SandboxError):
    """The tenant has as many sandboxes or connections on the server as it may have."""

    code = "quota_exceeded"


class ServerUnavailable(SandboxError, ConnectionError):
    """Nothing answered at the endpoint, or the server is closing.

    Attributes:
        retry_after: Seconds the server asked to wait, where it said so.
    """

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class IdempotencyMismatch(SandboxError, ValueError):
    """An idempotency key came again with another request than at first."""

    code = "idempotency_mismatch"


class IdempotencyInFlight(SandboxError):
    """The first request of an idempotency key still runs.

    Attributes:
        retry_after: Seconds to wait before the next try.
    """

    code = "idempotency_in_flight"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelError(SandboxError):
    """A model call failed.

    Attributes:
        model: The model as it was asked for.
        provider_status: The HTTP status, where there is one.
        request_id: The provider's id of the request, where there is one.
        retryable: Whether the same call may succeed later.
        retry_after: Seconds the provider asked to wait, where it said so.
        parameter: The parameter it is about, where it is about one.
        unbilled: Whether the provider surely billed nothing: it refused the call, or was never
            reached.
    """

    code = "model"

    def __init__(
        self,
        message: str,
        *,
        model: str | None = None,
        provider_status: int | None = None,
        request_id: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        parameter: str | None = None,
        unbilled: bool = False,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.provider_status = provider_status
        self.request_id = request_id
        self.retryable = retryable
        self.retry_after = retry_after
        self.parameter = parameter
        self.unbilled = unbilled


class ModelAuthError(ModelError, PermissionError):
    """There is no key for the model, or the provider refused it."""

    code = "model_auth"


class ModelNotFound(ModelError, LookupError):
    """The model is unknown, retired, or not installed."""

    code = "model_not_found"


class ModelUnavailable(ModelError, ConnectionError):
    """Nothing answered at the model's address, or the connection broke."""

    code = "model_unavailable"


class ModelTimeout(ModelError, TimeoutError):
    """The model gave no complete answer within the attempt's time."""

    code = "model_timeout"


class ModelRateLimited(ModelError):
    """The provider refused the call for load or quota."""

    code = "model_rate_limited"


class ReplayMiss(ModelError, LookupError):
    """A cassette that may only replay holds no answer to the call."""

    code = "replay_miss"


class UnsupportedParameter(ModelError, ValueError):
    """The model refuses a parameter that was sent."""

    code = "unsupported_parameter"
