"""Drafting with fewer layers: which, how far ahead, and when it pays (SWIFT, arXiv 2410.06916)."""
