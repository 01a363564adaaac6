"""Figures: `make bench` prints speed, size, CPU and memory beside their bars.

`load.py` makes the records that everything measures with; `reference.py` is the straight-line
program that the product is compared with; the parts measure the real agent and the real hub.
"""
