"""A server: a backend over HTTP, for many tenants, each with sandboxes of its own."""
