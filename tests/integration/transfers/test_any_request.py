"""Requests made from the OpenAPI document, right ones and wrong ones: none makes the server stumble."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from transfer_site import Site

PATHS = (
    ("POST", "/api/v2/me/calls/{call_id}"),
    ("POST", "/v1/transfers"),
    ("POST", "/v1/transfers/{transfer_id}/settlement"),
    ("GET", "/v1/transfers/{transfer_id}"),
)
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("mode", MODES)
async def test_any_request_is_answered(site: Site, method: str, path: str, mode: Any) -> None:
    def ask_many() -> int:
        schema = schemathesis.openapi.from_url(f"{site.url}/openapi.json")
        asked = 0

        @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=schema[path][method].as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            headers = {"Authorization": "Basic MTUwMDA6c2VjcmV0LTE1MDAw"} if "/me/" in path else {}
            response = case.call(headers={**(case.headers or {}), **headers})
            assert response.status_code < 500, response.text

        ask()
        return asked

    assert await asyncio.to_thread(ask_many) >= 1
