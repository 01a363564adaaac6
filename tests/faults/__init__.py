"""Faults: a shim under the real commands, kills at named points, and power cuts replayed.

`shim.c` (loaded in front of libc) records what a process does to its folder, slows or fails its
syncs; `armed.py` starts a real command with a kill armed at a named point; `disk.py` rebuilds what
a disk may hold after a power cut; `world.py` runs a hub, an agent and a device that keeps books;
`reconcile.py` compares the books with what the owner reads back.
"""
