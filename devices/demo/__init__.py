"""The whole line in one command: broker, hub, agent and a simulated site, as real processes.

Run `python -m devices.demo [--for 60s] [--chaos] [--seed N] [--keep DIR]`. In here:

    children    the processes and their logs      site       init, keys, tokens, configuration
    proxy       the link that chaos cuts          chaos      kills and cuts, by a seed
    reconcile   books against what was read       report     the table, the figures, the verdict
    figures     bars of all commands: one file, one function
"""
