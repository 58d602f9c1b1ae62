"""Measurements of the core and of what it is compared with. `python -m benchmarks.core` prints the table; see README.md."""
