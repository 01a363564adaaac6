"""Handlers of pages, one file each: who → form → validate → use case → redirect."""
