"""Latent thinking steps (LT-Tuning): vectors, insertion, training in stages, switches."""
