"""The programs of a sandbox: the agent inside and the launcher; standard library only."""
