"""Experiments: a model call, the code it writes, the tools it uses, tracked and exported."""
