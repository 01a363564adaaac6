"""modbus/ — people counters and bay detectors that are asked: RTU on a shared line, and TCP.

config.py    [[bus]] and [[device]] tables as structs
registers.py pure: register numbers as manuals write them, types, word and byte order
points.py    pure: where a number stands, its value from what was answered
bays.py      pure: bitmaps of parking bays
profile.py   register maps of real models, from devices/profiles/modbus/
plan.py      pure: which requests read a unit, and smaller ones where it refuses them
pace.py      pure: whose turn it is, how long it may take; dead units do not starve the others
source.py    tables checked and compiled: lines with their units
decoder.py   pure: what one unit answered -> a reading
client.py    the one place that wraps pymodbus
driver.py    the shell: ask in turn, decode, yield
probe.py     what `doctor` finds, with the remedy
"""
