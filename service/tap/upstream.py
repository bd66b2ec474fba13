"""The one server behind the tap. Nothing that a client sends has a say in where its bytes go."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from service.errors import BadConfig, BadHttp
from service.tap.wire import Bell, Wire

CONNECT_S = 5.0


class Upstream:
    """The server at `url`: ``http://host[:port]`` or ``https://host[:port]``.

    `ca_file`: certificates (PEM) to trust instead of the system's. `keep_host`: leave the client's Host; by
    default the server sees its own name there, as it does without the tap.
    """

    def __init__(self, url: str, *, ca_file: Path | None = None, keep_host: bool = False) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise BadConfig("tap", f"is {url!r}", "Write https://host:port of GWS")
        if parts.path.strip("/") or parts.query or parts.fragment or parts.username is not None:
            raise BadConfig(
                "tap", f"is {url!r}", "Write scheme, host and port alone: all paths are passed on"
            )
        self.url = f"{parts.scheme}://{parts.netloc}"
        self.authority = parts.netloc.encode("idna") if not parts.netloc.isascii() else parts.netloc.encode()
        self.host: bytes | None = None if keep_host else self.authority
        self._name = parts.hostname
        self._tls = client_tls(ca_file) if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)

    async def connect(self, bell: Bell) -> Wire:
        """A new connection.

        Raises:
            BadHttp: 502, none could be made, so that nothing was sent.

        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, wire = await loop.create_connection(
                    lambda: Wire(bell), self._name, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise BadHttp(502, f"no connection to the server ({error or type(error).__name__})") from error
        keep_alive(transport)
        return wire


def client_tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig("tap_ca_file", f"{ca_file} cannot be used ({error})", "Give a PEM file") from error


def server_tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """TLS towards clients: `certificate` is a PEM file with the chain, `key` its key if not in there."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(
            "tap_certificate", f"{certificate} cannot be used ({error})", "Give PEM files of a pair"
        ) from error
    return context


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the kernel notice when the other machine is gone: a held poll may be silent for long."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
