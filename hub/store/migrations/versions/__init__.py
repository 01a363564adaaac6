"""One file a migration, numbered; additive, so that release N − 1 opens what N wrote."""
