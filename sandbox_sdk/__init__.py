"""Isolated sandboxes and tracked LLM experiments, async and blocking."""
