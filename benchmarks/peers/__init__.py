"""What is measured: each module runs as a process of its own and answers in JSON lines (see lines.py)."""
