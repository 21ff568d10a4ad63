"""Tools of this repository that the package does not need."""
