"""The facts of one dialect of Genesys: Web Services (HTCC) API v2, 8.5.0 to 8.6.0.

Paths, channels and names as the Genesys Web Services API guide has them. A second dialect (the Workspace
API v3 of GWS 9) would be a second module of this shape.
"""

from __future__ import annotations

from urllib.parse import quote

PREFIX = "/api/v2"
ME = f"{PREFIX}/me"
MY_CALLS = f"{ME}/calls"
NOTIFICATIONS = f"{PREFIX}/notifications"

MY_CHANNELS = "/v2/me/*"
"""All channels of the agent: calls, devices, channels, chats …"""
MY_USER_CHANNEL = "/v2/me"
SERVICES_CHANNEL = "/notifications/services"
SUBSCRIPTIONS = (MY_USER_CHANNEL, MY_CHANNELS, SERVICES_CHANNEL)

SINGLE_STEP_TRANSFER = "SingleStepTransfer"
START_SESSION = "StartContactCenterSession"

CALL_MESSAGE = "CallStateChangeMessage"
ERROR_MESSAGES = frozenset({"ErrorMessage", "EventError"})

RINGING = "Ringing"
DIALING = "Dialing"
ESTABLISHED = "Established"
HELD = "Held"
RELEASED = "Released"
COMPLETED = "Completed"
OVER = frozenset({RELEASED, COMPLETED})
TALKING = frozenset({ESTABLISHED, HELD})

CSRF_NAME_HEADER = "X-CSRF-HEADER"
"""The answer's header that names the header which carries the CSRF token (page CSRFProtection)."""


def call_path(call_id: str) -> str:
    """The REST path of one of the agent's calls."""
    return f"{MY_CALLS}/{quote(call_id, safe='')}"
