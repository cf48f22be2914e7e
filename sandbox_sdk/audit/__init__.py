"""The audit log: who did what, when, with what outcome, in lines that prove what they say.

Each line is a CloudEvent with the SHA-256 of the line before; a Merkle tree stands over all, and
signed checkpoints over that. Only what records is imported here, so that a client that records
nothing loads no cryptography.
"""

from sandbox_sdk.audit.auditor import Auditor, Control, Watched, Watcher
from sandbox_sdk.audit.events import Actor, Entry, Line
from sandbox_sdk.audit.log import AuditLog

__all__ = [
    "Actor",
    "AuditLog",
    "Auditor",
    "Control",
    "Entry",
    "Line",
    "Watched",
    "Watcher",
]
