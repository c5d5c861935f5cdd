"""Benchmarks: each module says in its first line which question it answers."""
