"""The ways to build one sandbox; none knows another."""
