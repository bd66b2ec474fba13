"""The cookies of one agent on one server.

A CometD server knows a browser by its cookie and lets it hold only one poll, so every agent needs a jar of
its own. With thousands of agents in a process a full HTTP session each is too dear; this jar is a small
dict beside one shared HTTP session, it can be saved and restored, and the caller's own requests to the same
server can share it (`header`, `store`).

It keeps what RFC 6265 asks of a client that talks to one host: path, expiry (``Max-Age``, ``Expires``) and
``Secure``. Values go back exactly as they came, quotes included. ``Domain`` is not looked at: there is one
host.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from yarl import URL


@dataclass(frozen=True, slots=True)
class _Cookie:
    name: str
    value: str = field(repr=False)
    path: str
    expires: float | None
    secure: bool

    def fits(self, url: URL, now: float) -> bool:
        if (self.expires is not None and self.expires <= now) or (self.secure and url.scheme not in _SECURE):
            return False
        path = url.raw_path
        return path.startswith(self.path) and (
            len(path) == len(self.path) or self.path.endswith("/") or path[len(self.path)] == "/"
        )


_SECURE = ("https", "wss")


class Cookies:
    """A jar. Its repr tells names, never values."""

    __slots__ = ("_cookies",)

    def __init__(self, dumped: Iterable[Mapping[str, Any]] = ()) -> None:
        self._cookies: dict[tuple[str, str], _Cookie] = {}
        self.load(dumped)

    def __repr__(self) -> str:
        return f"Cookies({', '.join(sorted(name for name, _ in self._cookies))})"

    def __len__(self) -> int:
        return len(self._cookies)

    def header(self, url: URL) -> str | None:
        """Return the value of the `Cookie` header for a request, None if there is nothing to send."""
        now = time.time()
        fitting = [cookie for cookie in self._cookies.values() if cookie.fits(url, now)]
        fitting.sort(key=lambda cookie: -len(cookie.path))
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in fitting) or None

    def store(self, url: URL, set_cookie: Iterable[str]) -> None:
        """Take the `Set-Cookie` headers of a response to a request for `url`."""
        for header in set_cookie:
            first, *attributes = header.split(";")
            name, equals, value = (part.strip() for part in first.partition("="))
            if not name or not equals:
                continue
            cookie = _cookie(name, value, attributes, url)
            if cookie.expires is not None and cookie.expires <= time.time():
                self._cookies.pop((name, cookie.path), None)
            else:
                self._cookies[name, cookie.path] = cookie

    def clear(self) -> None:
        """Forget all, as after the server has refused our credentials."""
        self._cookies.clear()

    def dump(self) -> tuple[dict[str, str | float | bool | None], ...]:
        """Return the cookies as plain values, which `load` takes. They are credentials."""
        return tuple(
            {"name": c.name, "value": c.value, "path": c.path, "expires": c.expires, "secure": c.secure}
            for c in self._cookies.values()
        )

    def load(self, dumped: Iterable[Mapping[str, Any]]) -> None:
        """Add cookies from a `dump`."""
        for plain in dumped:
            cookie = _Cookie(**plain)
            self._cookies[cookie.name, cookie.path] = cookie


def _cookie(name: str, value: str, attributes: list[str], url: URL) -> _Cookie:
    """Read the attributes of a `Set-Cookie` header. ``Max-Age`` wins over ``Expires``."""
    given: dict[str, str] = {}
    for attribute in attributes:
        key, _, text = attribute.partition("=")
        given[key.strip().lower()] = text.strip()
    path = given.get("path", "")
    if not path.startswith("/"):
        path = url.raw_path.rpartition("/")[0] or "/"
    expires: float | None = None
    try:
        if "max-age" in given:
            expires = time.time() + int(given["max-age"])
        elif "expires" in given:
            expires = parsedate_to_datetime(given["expires"].replace("-", " ")).timestamp()
    except (ValueError, OverflowError):
        expires = None  # unreadable: a cookie of this session, as if nothing had been said
    return _Cookie(name, value, path, expires, "secure" in given)
