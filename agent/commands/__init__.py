"""agent/commands/ — what the commands of `shanmen-agent` do, beside `run`.

enrol        get an identity
status       ask the running agent; tap_socket, tap_lines: `watch`
doctor, probe: look at everything, name the remedies
"""
