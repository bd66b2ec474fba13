"""Listening so that a second process can take over: no connection is lost when this one leaves."""

from __future__ import annotations

import ctypes
import os
import socket
import struct

from service.errors import BadConfig

BACKLOG = 4096
FIRST_INHERITED = 3  # the first file descriptor that systemd passes (sd_listen_fds(3))
SO_ATTACH_REUSEPORT_CBPF = 51  # linux/include/uapi/asm-generic/socket.h; Python has no name for it
BPF_RETURN = 0x06  # BPF_RET | BPF_K


def parse_address(text: str) -> tuple[str, int]:
    """``host:port`` or ``[host]:port``.

    Raises:
        BadConfig: it is neither.

    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise BadConfig("tap_listen", f"is {text!r}", "Write host:port")
    return host, int(port)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: the one that systemd hands over, or a new one that shares its port (SO_REUSEPORT).

    Raises:
        BadConfig: the address cannot be had.

    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
        return socket.socket(fileno=FIRST_INHERITED)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it each answer waits for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise BadConfig(
            "tap_listen", f"{host}:{port} cannot be had ({error.strerror})", "Choose another"
        ) from error
    listener.listen(BACKLOG)
    return listener


def leave_to_successor(listener: socket.socket) -> None:
    """Have the kernel give new connections to the process that took up the port after us.

    Closing a listening socket resets the connections that it has not accepted yet. So first the kernel is
    told to choose the second socket of the port (a classic BPF program that returns its index), and ours can
    be closed when those that it was given before have been accepted. Where there is no second socket, or no
    such kernel, ours goes on being chosen.
    """
    program = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 1))
    told = struct.pack("HP", 1, ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, told)
    except OSError:
        return
