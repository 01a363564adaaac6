"""The hub's rules as plain functions and types: no SQL, no HTTP, no clock."""
