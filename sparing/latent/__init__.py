"""Thinking without words: vectors, insertion, training in stages, switches (LT-Tuning)."""
