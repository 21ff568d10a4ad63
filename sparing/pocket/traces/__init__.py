"""What pocket is taught to think: for each family a writer from an entry to a trace."""
