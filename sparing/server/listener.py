"""The socket of a server, opened before anything heavy is loaded."""

import socket

from sparing.errors import OptionError

BACKLOG = 1024


def bind(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes a free one. Raises OptionError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise OptionError(
            f"host and port must be free to listen on, got {host}:{port}: {error}; "
            "pass another --host or --port"
        ) from None
    listener.listen(BACKLOG)
    return listener
