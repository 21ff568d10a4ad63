"""The resumable training loop, and stage 1: explicit chain of thought."""
