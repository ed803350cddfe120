"""The three things that a service and its systemd manager tell each other.

Owns: sd_notify(3) datagrams, the watchdog's interval, sockets handed over by a socket unit (sd_listen_fds(3)).
Does not own: when which state is announced (``app``), nor the unit files (``systemd/``, docs/install-vps.md).
"""

from __future__ import annotations

import errno
import os
import socket
import time

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START: the first descriptor that systemd hands over."""

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"


def reloading() -> str:
    """Return the state that begins a reload; send ``READY`` when it is done.

    Type=notify-reload matches the answer to its signal by the monotonic time in microseconds.
    """
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def notify(state: str) -> None:
    """Send ``state`` (lines of ``KEY=value``) to the manager; does nothing where no manager asked to be told.

    Never blocks and never raises: a server does not stop serving because nobody listens to its state. A path in
    ``NOTIFY_SOCKET`` that begins with ``@`` is a name in the abstract namespace.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(state.encode(), address)
    except OSError:
        # The manager is gone or its queue is full. It judges silence itself, by its start and watchdog timeouts.
        return


def watchdog_interval() -> float | None:
    """Return how often, in seconds, ``WATCHDOG`` has to be sent: half of what the unit allows; None when not asked.

    The variables are ignored when they are meant for another process (``WATCHDOG_PID``) or hold no positive number.
    """
    meant_for = os.environ.get("WATCHDOG_PID", "")
    if meant_for and meant_for != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isascii() or not microseconds.isdigit() or int(microseconds) == 0:
        return None
    return int(microseconds) / 2_000_000


def listen_sockets() -> list[socket.socket]:
    """Take over the sockets that a socket unit passed, in its order; empty when there are none for this process.

    They come non-blocking and are not inherited by children, and the variables leave the environment, so a second
    call returns nothing. Closing one does not stop the unit from listening. Raises ``OSError`` with a sentence that
    names the descriptor when one of them is no listening stream socket (ListenDatagram= or Accept=yes in the unit).
    """
    meant_for = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if meant_for != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    return [_listening(descriptor) for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))]


def _listening(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        taken = socket.socket(fileno=descriptor)
    except OSError as error:
        raise OSError(error.errno, f"systemd handed over descriptor {descriptor}, which is no socket") from error
    if taken.type != socket.SOCK_STREAM or not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        taken.detach()
        raise OSError(
            errno.EINVAL,
            f"systemd handed over descriptor {descriptor}, which is no listening stream socket; "
            "the socket unit needs ListenStream= and Accept=no",
        )
    taken.setblocking(False)
    return taken
