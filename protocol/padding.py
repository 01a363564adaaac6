"""Padmé: lengths that tell little, for personal column groups.

Nikitin et al., "Reducing Metadata Leakage from Encrypted Files" (PETS 2019): a length keeps only
its highest bits, so that it leaks O(log log n) bits at an overhead of at most 12 %.
"""

from protocol.limits import PADDING_BYTES_MIN


def padded_length(length: int) -> int:
    """The Padmé length of `length` bytes, at least PADDING_BYTES_MIN."""
    if length <= PADDING_BYTES_MIN:
        return PADDING_BYTES_MIN
    exponent = length.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (length + mask) & ~mask
