"""Pocket's traces of thought: for each family a writer from an entry to a trace."""
