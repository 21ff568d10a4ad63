"""Sparing inside other programs: lm-eval's harness and Datasette's ``llm``."""
