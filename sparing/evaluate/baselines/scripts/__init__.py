"""What other interpreters run: files that import nothing of Sparing."""
