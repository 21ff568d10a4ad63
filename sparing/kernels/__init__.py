"""Compiled passes over packed weights, and their products in torch as the oracle."""
