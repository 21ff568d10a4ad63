"""Sparing on a Ray cluster: jobs of experiments, and a server of many replicas."""
