"""Batches: a dataset over a grid, planned, run, found again and previewed."""
