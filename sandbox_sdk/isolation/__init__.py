"""One sandbox on this kernel: what the host allows, the walls, and the runtimes that build them."""
