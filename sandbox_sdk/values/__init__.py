"""Frozen values that cross the layers, and the small protocols by which layers meet."""

from sandbox_sdk.values.ending import ATTEMPT_STATE, COUNTED, AttemptState, Ended, EndKind
from sandbox_sdk.values.protocols import (
    ModelHost,
    Process,
    Sandboxes,
    Shelf,
    Workplace,
    WorkspaceFiles,
)
from sandbox_sdk.values.results import (
    Artifact,
    CodeError,
    CodeResult,
    Collected,
    CommandResult,
    FileEvent,
    FileInfo,
    MimeBundle,
)
from sandbox_sdk.values.samples import Sample
from sandbox_sdk.values.sandbox import (
    GIB,
    KIB,
    MIB,
    Mount,
    Reserve,
    Resources,
    RuntimeName,
    SandboxInfo,
    SandboxSpec,
    SandboxState,
    SecurityLevel,
    new_id,
)
from sandbox_sdk.values.standing import Isolation, Limit, Usage, Wall
from sandbox_sdk.values.template import TemplateInfo

__all__ = [
    "ATTEMPT_STATE",
    "COUNTED",
    "GIB",
    "KIB",
    "MIB",
    "Artifact",
    "AttemptState",
    "CodeError",
    "CodeResult",
    "Collected",
    "CommandResult",
    "EndKind",
    "Ended",
    "FileEvent",
    "FileInfo",
    "Isolation",
    "Limit",
    "MimeBundle",
    "ModelHost",
    "Mount",
    "Process",
    "Reserve",
    "Resources",
    "RuntimeName",
    "Sample",
    "SandboxInfo",
    "SandboxSpec",
    "SandboxState",
    "Sandboxes",
    "SecurityLevel",
    "Shelf",
    "TemplateInfo",
    "Usage",
    "Wall",
    "Workplace",
    "WorkspaceFiles",
    "new_id",
]
