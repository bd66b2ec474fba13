"""One agent's cookies."""

from __future__ import annotations

import time

import pytest
from yarl import URL

from service.cometd import Cookies

POLL = URL("http://127.0.0.1:8080/api/v2/notifications")


def jar(*headers: str, url: URL = POLL) -> Cookies:
    cookies = Cookies()
    cookies.store(url, headers)
    return cookies


def test_cookies_of_a_numeric_host_come_back_verbatim() -> None:
    cookies = jar('BAYEUX_BROWSER="a=b/c+"; Path=/; HttpOnly', "JSESSIONID=1.node0; path=/api")
    assert cookies.header(POLL) == 'JSESSIONID=1.node0; BAYEUX_BROWSER="a=b/c+"'


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/", True),
        ("/api", True),
        ("/api/", True),
        ("/api/v2/notifications", True),
        ("/api/v2/note", False),
        ("/other", False),
        ("relative", True),
    ],
)
def test_paths_are_respected(path: str, sent: bool) -> None:
    assert (jar(f"a=1; Path={path}").header(POLL) is not None) is sent


def test_without_a_path_the_folder_of_the_request_counts() -> None:
    cookies = jar("a=1")
    assert cookies.header(URL("http://h/api/v2/me")) == "a=1"
    assert cookies.header(URL("http://h/api/v1/me")) is None


@pytest.mark.parametrize(
    "ending",
    [
        "Max-Age=0",
        "Max-Age=-1",
        "Expires=Thu, 01-Jan-1970 00:00:00 GMT",
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    ],
)
def test_the_server_can_take_a_cookie_back(ending: str) -> None:
    cookies = jar("a=1; Path=/", "b=2; Path=/")
    cookies.store(POLL, [f"a=; Path=/; {ending}"])
    assert cookies.header(POLL) == "b=2"


def test_an_expired_cookie_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    cookies = jar("a=1; Path=/; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT")
    assert cookies.header(POLL) == "a=1"
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert cookies.header(POLL) is None


def test_a_newer_value_replaces_the_older() -> None:
    cookies = jar("a=1; Path=/", "a=2; Path=/")
    assert cookies.header(POLL) == "a=2"
    assert len(cookies) == 1


def test_secure_cookies_need_a_secure_connection() -> None:
    cookies = jar("a=1; Path=/; Secure")
    assert cookies.header(POLL) is None
    assert cookies.header(URL("https://h/")) == "a=1"
    assert cookies.header(URL("wss://h/")) == "a=1"


@pytest.mark.parametrize("header", ["", "nonsense", "=x", "; Path=/"])
def test_what_is_no_cookie_is_passed_over(header: str) -> None:
    assert len(jar(header)) == 0


@pytest.mark.parametrize("attribute", ["Max-Age=soon", "Expires=whenever"])
def test_an_unreadable_end_is_no_end(attribute: str) -> None:
    assert jar(f"a=1; Path=/; {attribute}").header(POLL) == "a=1"


def test_a_dump_of_plain_values_restores_the_jar() -> None:
    cookies = jar("a=1; Path=/; Max-Age=60", "b=2; Path=/api; Secure")
    restored = Cookies(cookies.dump())
    assert restored.dump() == cookies.dump()
    assert restored.header(POLL) == "a=1"


def test_values_are_not_shown() -> None:
    cookies = jar("BAYEUX_BROWSER=secret")
    assert repr(cookies) == "Cookies(BAYEUX_BROWSER)"
    cookies.clear()
    assert len(cookies) == 0
