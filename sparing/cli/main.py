"""The command's entry: light, so that Ctrl-C is in order from the first moment."""

import atexit
import os
import signal
import sys

from sparing.cli import streams
from sparing.cli.signals import INTERRUPTED, leaving_at_once
from sparing.errors import SparingError

UNWRITTEN = 1


def main() -> None:
    """Run the command line and exit.

    A user's mistake is one line on stderr and exit code 2, a stdout that cannot be written one line
    and exit code 1, Ctrl-C exit code 130.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    streams.prepare()
    failed: OSError | None = None
    try:
        code = command()
    except SparingError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        failed, code = error, UNWRITTEN
    if lost := streams.unwritten("\n" if failed else ""):  # a line break shows whose fault it is
        streams.report(lost)
        code = code or UNWRITTEN
    elif failed:
        raise failed
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)  # nothing is to be kept any more
    sys.exit(code)


def command() -> int:
    """Run the command; its exit code."""
    with leaving_at_once():
        from sparing.cli.app import dispatch
    return dispatch()


if __name__ == "__main__":
    main()
