"""Products of packed weights: C++, and the same arithmetic in torch."""
