"""Programs of scorers that run inside a sandbox: standard library only, sent as text."""
