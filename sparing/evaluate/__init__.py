"""Accuracy, comparison, benchmarks: figures from a run, with the machine they were taken on."""
