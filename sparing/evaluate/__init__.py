"""Benchmarks and their reports: figures from a run, with the machine they were taken on."""
