"""Many sandboxes on this machine."""
