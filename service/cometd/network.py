"""What aiohttp's failures mean: whether anything can have reached the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from service.errors import TransportFailed


@contextmanager
def failures_told() -> Iterator[None]:
    """Turn whatever a request can run into to `TransportFailed`.

    The sentence names the kind of failure and the address, never the request: its text holds secrets.
    """
    try:
        yield
    except aiohttp.ClientConnectorError as error:  # TLS failures are of this class too
        raise TransportFailed(f"no connection: {error}", sent=False) from None
    except aiohttp.ConnectionTimeoutError:
        raise TransportFailed("no connection within the time allowed", sent=False) from None
    except TimeoutError:
        raise TransportFailed("no answer within the time allowed") from None
    except (aiohttp.ClientError, OSError) as error:
        raise TransportFailed(f"the answer broke off: {type(error).__name__}") from None
