"""Honest other ends of the drivers: they speak the real protocol and keep books of their own.

A simulator is a process of its own (`python -m devices.simulators.carpark …`) that publishes to a
real broker (`broker.py`), speaks on a line (`serial_gate.py`) or answers on a bus
(`modbus_bus.py`), as its devices would, with their repeats, rejoins, wraps and deaths, and writes
down what it produced and what was acknowledged to it (`books.py`). It shares no code with the
drivers: what both sides know is the device's manual and the names of the domain packs.
"""
