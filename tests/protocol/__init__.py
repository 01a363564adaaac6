"""Tests of the pure package: no fixture here touches disk, network or clock."""
