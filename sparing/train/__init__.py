"""The resumable training loop, and stage 1: an explicit chain of thought."""
