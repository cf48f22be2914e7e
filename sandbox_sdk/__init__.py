"""Isolated sandboxes and tracked LLM experiments, async and blocking.

`SandboxClient` is the way in, and `AsyncSandboxClient` its async form. Names are imported when
they are first used, so that ``import sandbox_sdk`` itself costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox_sdk.auth import AuthStatus
    from sandbox_sdk.auth.client import Auth
    from sandbox_sdk.batch import AsyncBatch
    from sandbox_sdk.client import AsyncSandboxClient
    from sandbox_sdk.errors import (
        AdmissionTimeout,
        AuthenticationError,
        CallTimeout,
        CommandFailed,
        ConfigError,
        CredentialNotFound,
        ExportError,
        FileError,
        IdempotencyInFlight,
        IdempotencyMismatch,
        IdleTimeout,
        IntegrityError,
        IsolationError,
        KeyNotFound,
        LaunchError,
        LifetimeExceeded,
        ModelAuthError,
        ModelError,
        ModelNotFound,
        ModelRateLimited,
        ModelTimeout,
        ModelUnavailable,
        NotPermitted,
        PolicyDenied,
        ProtocolError,
        QuotaExceeded,
        ReplayMiss,
        RequestRefused,
        SandboxBusy,
        SandboxClosed,
        SandboxEnded,
        SandboxError,
        SandboxNotFound,
        ServerUnavailable,
        StateError,
        TemplateError,
        UnsupportedParameter,
        VersionMismatch,
    )
    from sandbox_sdk.experiments.batches.preview import BatchPreview
    from sandbox_sdk.experiments.batches.progress import Progress
    from sandbox_sdk.experiments.records.run_info import RunInfo
    from sandbox_sdk.experiments.results.result import ExperimentResult
    from sandbox_sdk.experiments.results.run_result import RunResult, Trial
    from sandbox_sdk.files import AsyncFiles
    from sandbox_sdk.orchestrator import (
        AsyncSDKOrchestrator,
        HistoryPoint,
        ResourceSnapshot,
        Rule,
        Scaled,
        Suggestion,
        Verdict,
    )
    from sandbox_sdk.process import AsyncProcess
    from sandbox_sdk.sandbox import AsyncSandbox
    from sandbox_sdk.values import (
        CodeError,
        CodeResult,
        CommandResult,
        Ended,
        EndKind,
        FileEvent,
        FileInfo,
        Isolation,
        Limit,
        MimeBundle,
        Resources,
        SandboxInfo,
        SandboxState,
        TemplateInfo,
        Usage,
        Wall,
    )
    from sandbox_sdk_sync import Batch, Files, Process, Sandbox, SandboxClient, SDKOrchestrator

__all__ = [
    "AdmissionTimeout",
    "AsyncBatch",
    "AsyncFiles",
    "AsyncProcess",
    "AsyncSDKOrchestrator",
    "AsyncSandbox",
    "AsyncSandboxClient",
    "Auth",
    "AuthStatus",
    "AuthenticationError",
    "Batch",
    "BatchPreview",
    "CallTimeout",
    "CodeError",
    "CodeResult",
    "CommandFailed",
    "CommandResult",
    "ConfigError",
    "CredentialNotFound",
    "EndKind",
    "Ended",
    "ExperimentResult",
    "ExportError",
    "FileError",
    "FileEvent",
    "FileInfo",
    "Files",
    "HistoryPoint",
    "IdempotencyInFlight",
    "IdempotencyMismatch",
    "IdleTimeout",
    "IntegrityError",
    "Isolation",
    "IsolationError",
    "KeyNotFound",
    "LaunchError",
    "LifetimeExceeded",
    "Limit",
    "MimeBundle",
    "ModelAuthError",
    "ModelError",
    "ModelNotFound",
    "ModelRateLimited",
    "ModelTimeout",
    "ModelUnavailable",
    "NotPermitted",
    "PolicyDenied",
    "Process",
    "Progress",
    "ProtocolError",
    "QuotaExceeded",
    "ReplayMiss",
    "RequestRefused",
    "ResourceSnapshot",
    "Resources",
    "Rule",
    "RunInfo",
    "RunResult",
    "SDKOrchestrator",
    "Sandbox",
    "SandboxBusy",
    "SandboxClient",
    "SandboxClosed",
    "SandboxEnded",
    "SandboxError",
    "SandboxInfo",
    "SandboxNotFound",
    "SandboxState",
    "Scaled",
    "ServerUnavailable",
    "StateError",
    "Suggestion",
    "TemplateError",
    "TemplateInfo",
    "Trial",
    "UnsupportedParameter",
    "Usage",
    "Verdict",
    "VersionMismatch",
    "Wall",
]

_MODULES = (
    "sandbox_sdk.errors",
    "sandbox_sdk.values",
    "sandbox_sdk.auth",
    "sandbox_sdk.orchestrator",
    "sandbox_sdk.files",
    "sandbox_sdk.process",
    "sandbox_sdk.sandbox",
    "sandbox_sdk.client",
    "sandbox_sdk_sync",
    "sandbox_sdk.batch",
    "sandbox_sdk.experiments.results.result",
    "sandbox_sdk.experiments.records.run_info",
    "sandbox_sdk.experiments.batches.progress",
    "sandbox_sdk.experiments.results.run_result",
    "sandbox_sdk.experiments.batches.preview",
    "sandbox_sdk.auth.client",
)
"""Where the public names live, cheapest to import first."""


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in _MODULES:
            if (found := getattr(import_module(module), name, None)) is not None:
                globals()[name] = found  # the next use does not come here
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
