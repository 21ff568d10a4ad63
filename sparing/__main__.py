"""`python -m sparing`."""

from sparing.cli.main import main

main()
