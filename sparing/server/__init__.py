"""Many people thinking at once, over HTTP, in memory that is known beforehand."""
