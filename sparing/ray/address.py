"""Which Ray cluster: checked before anything slow, without importing Ray."""

import os
import socket
from importlib.util import find_spec

from sparing.errors import OptionError

LOCAL, AUTO = "local", "auto"
ANSWER_S = 5  # that a cluster has to take a connection, and to say something

# of HTTP/2: how a client begins, with settings that are empty; a server answers with its own
SETTINGS, FRAME_BYTES = 4, 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])


def check_ray(address: str) -> None:
    """Raise OptionError where Ray is not installed, or no cluster answers at the address."""
    if find_spec("ray") is None:
        raise OptionError(
            "--ray needs the package ray, which is not here; "
            "install it with pip install 'sparing[ray]'"
        )
    if address not in (LOCAL, AUTO):
        check_answers(address, *host_and_port(address))


def host_and_port(address: str) -> tuple[str, int]:
    """Raises OptionError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise OptionError(
            f"--ray must be {LOCAL} (a cluster of this machine, for this command), {AUTO} (the one "
            f"that this machine belongs to) or its HOST:PORT, got {address!r}; for a cluster "
            "elsewhere run the command on one of its nodes, or with `ray job submit`"
        )
    return host.strip("[]"), int(port)


def check_answers(address: str, host: str, port: int) -> None:
    """Raise OptionError where no gRPC server listens: Ray itself would try for minutes."""
    try:
        with socket.create_connection((host, port), ANSWER_S) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            connection.sendall(PREFACE)
            frame = connection.recv(FRAME_BYTES, socket.MSG_WAITALL)
    except OSError as error:
        got = error.strerror or str(error)
    else:
        if len(frame) == FRAME_BYTES and frame[3] == SETTINGS:
            return
        got = "something that is not Ray"
    raise OptionError(
        f"--ray must be the address of a cluster that runs, got {address} ({got}); start one with "
        "`ray start --head`, or check the address"
    )
