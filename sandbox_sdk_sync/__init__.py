# Generated from the classes in sandbox_sdk. Run: nox -s generate -- --write
"""The blocking twin of ``sandbox_sdk``."""

from sandbox_sdk_sync.batch import Batch
from sandbox_sdk_sync.client import SandboxClient
from sandbox_sdk_sync.files import Files
from sandbox_sdk_sync.orchestrator import SDKOrchestrator
from sandbox_sdk_sync.process import Process
from sandbox_sdk_sync.sandbox import Sandbox

__all__ = ["Batch", "Files", "Process", "SDKOrchestrator", "Sandbox", "SandboxClient"]
