"""The command `sparing`."""
