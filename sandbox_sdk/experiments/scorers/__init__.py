"""Scorers: what judges a submission, from equal texts to tests run in a fresh sandbox."""

from sandbox_sdk.experiments.scorers.base import (
    UNSCORED,
    Graders,
    SandboxMaker,
    Score,
    Scorer,
    Submission,
    scored,
)
from sandbox_sdk.experiments.scorers.build import KINDS, build, build_all

__all__ = [
    "KINDS",
    "UNSCORED",
    "Graders",
    "SandboxMaker",
    "Score",
    "Scorer",
    "Submission",
    "build",
    "build_all",
    "scored",
]
