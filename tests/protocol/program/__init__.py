"""Tests of what our programs do alike."""
