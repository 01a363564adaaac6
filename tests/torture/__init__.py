"""`make torture`: kills at every named point, power cuts, mutants that must be caught, long fuzzing.

Parts can be run alone: `make torture PARTS="kills powercut"`. Short versions run in `make test`
(tests/faults/test_short.py).
"""
