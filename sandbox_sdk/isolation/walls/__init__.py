"""The walls, one kernel word per module: standard library and ctypes only."""
