"""What judges hostile text in a process of its own: standard library only, run by path."""
