"""What is kept on disk beside the journals: sandboxes, leases, runs."""
