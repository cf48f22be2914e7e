"""The blocking twin of ``sandbox_sdk``."""
