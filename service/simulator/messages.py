"""The texts GWS sends: call resources, notifications, error notifications, in both server generations.

Field order is that of the published samples. userData is written pair by pair, because a key may stand in
it twice. Facts: document `gws-voice-api`, sections 4.2 to 5.
"""

from importlib.resources import files
from typing import Any, Literal

import msgspec

from service.simulator.agents import Agent
from service.simulator.options import Form
from service.simulator.switch import View

CALLS_CHANNEL = "/v2/me/calls"
DEVICES_CHANNEL = "/v2/me/devices"
USER_CHANNEL = "/v2/me"

SAMPLE_HOST = "http://127.0.0.1:8080"
"""The host that the published samples name in their URIs."""

_DATA = files("service.simulator") / "data"
SAMPLE_RESPONSE = (_DATA / "sample-response.json").read_bytes()
"""The HTTP answer of the samples, byte for byte."""
SAMPLE_NOTIFICATIONS = [(_DATA / f"sample{n}-notification.json").read_bytes().rstrip() for n in (1, 2)]
"""The two notifications of the samples, byte for byte, without the files' final line end."""

ErrorShape = Literal["device", "device_message", "call", "user", "event"]
"""The five shapes of an asynchronous error, in the order of document `gws-voice-api`, section 4.4."""


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def call_resource(view: View, url: str, form: Form) -> dict[str, Any]:
    """Render a call as its agent's GET and notifications show it; `url` is the server's own."""
    call = view.call
    host = SAMPLE_HOST if call.sample else url
    resource: dict[str, Any] = {"id": call.id, "state": view.state, "callUuid": call.uuid}
    if form == "8.5.2":
        resource["connId"] = call.conn_id
    resource["deviceUri"] = f"{host}/api/v2/devices/{view.device_id}"
    if form == "8.5.2":
        resource["participants"] = [_party(number) | {"phoneNumber": number} for number in view.participants]
    else:
        resource["participants"] = list(view.participants)
        resource["participantsInfo"] = [_party(number) for number in view.participants]
    resource["dnis"] = call.dnis
    if call.ani is not None:
        resource["ani"] = call.ani
    resource["callType"] = call.call_type
    resource["capabilities"] = list(view.capabilities)
    if view.user_data:
        pairs = (encode(key) + b":" + encode(value) for key, value in view.user_data)
        resource["userData"] = msgspec.Raw(b"{" + b",".join(pairs) + b"}")
    if call.parent is not None:
        resource["parentCallUri"] = f"{host}/api/v2/me/calls/{call.parent.id}"
    return resource | {
        "duration": str(view.duration_s),
        "mute": view.mute,
        "supervisorListeningIn": False,
        "monitoredUserMuted": False,
        "monitoring": False,
        "uri": f"{host}/api/v2/me/calls/{call.id}",
        "path": f"/calls/{call.id}",
    }


def _party(number: str) -> dict[str, str]:
    return {"e164Number": "", "formattedPhoneNumber": number, "digits": number}


def call_notification(view: View, url: str, form: Form, generated_ms: int | None) -> bytes:
    """Render a CallStateChangeMessage; `generated_ms` (epoch) goes into `metrics`, None leaves them out.

    A message that says what a published sample says, its duration aside, is sent in the sample's own bytes.
    """
    data: dict[str, Any] = {
        "notificationType": view.notification_type,
        "call": call_resource(view, url, form),
        "phoneNumber": view.number,
    }
    if view.notification_type == "StatusChange":
        data["extensions"] = {"BusinessCall": 1 if view.call.call_type == "Inbound" else 0}
    data["messageType"] = "CallStateChangeMessage"
    if generated_ms is not None and form == "8.5.2" and not view.call.sample:
        data["metrics"] = _metrics(generated_ms)
    message = encode({"data": data, "channel": CALLS_CHANNEL})
    if view.call.sample and view.state == "Released":
        for sample in SAMPLE_NOTIFICATIONS:
            if _without_duration(message) == _without_duration(sample):
                return sample
    return message


def _without_duration(message: bytes) -> Any:
    parsed = msgspec.json.decode(message)
    parsed["data"]["call"].pop("duration")
    return parsed


def _metrics(generated_ms: int) -> dict[str, Any]:
    return {
        "eventProcessing": {
            "serverGenerationTimestamp": generated_ms,
            "serverProcessingTimeTotalMs": 3,
            "nodeProcessingTimeNanos": 465_000,
        }
    }


def device_resource(agent: Agent, url: str) -> dict[str, Any]:
    """Render an agent's device (document `gws-voice-api`, section 6)."""
    state = "Ready" if agent.logged_in else "LoggedOut"
    return {
        "id": agent.device_id,
        "uri": f"{url}/api/v2/devices/{agent.device_id}",
        "path": f"/devices/{agent.device_id}",
        "deviceState": "Active" if agent.logged_in else "Inactive",
        "userState": {"id": f"{state}-id", "state": state, "displayName": state},
        "phoneNumber": agent.number,
        "e164Number": "",
        "telephonyNetwork": "Private",
        "doNotDisturb": "Off",
        "capabilities": ["ForwardCallsOn", "DoNotDisturbOn"] if agent.logged_in else [],
        "voiceEnvironmentUri": f"{url}/api/v2/voice-environments/1",
    }


def device_notification(agent: Agent, url: str) -> bytes:
    """Render a DeviceStateChangeMessage."""
    data = {"devices": [device_resource(agent, url)], "messageType": "DeviceStateChangeMessage"}
    return encode({"data": data, "channel": DEVICES_CHANNEL})


def error_notification(
    shape: ErrorShape, *, agent: Agent, view: View, url: str, form: Form, code: int, text: str
) -> tuple[str, bytes]:
    """Render an asynchronous error in one of the shapes that have been seen; gives its channel too."""
    where = {
        "devicePath": f"/devices/{agent.device_id}",
        "deviceUri": f"{url}/api/v2/devices/{agent.device_id}",
    }
    channel = DEVICES_CHANNEL
    data: dict[str, Any]
    match shape:
        case "device":
            data = {"messageType": "ErrorMessage", **where}
        case "device_message":
            data = {"messageType": "ErrorMessage", "errorMessage": text, **where}
        case "call":
            channel = CALLS_CHANNEL
            data = {
                "notificationType": "Error",
                "call": call_resource(view, url, form),
                "phoneNumber": agent.number,
                "messageType": "CallStateChangeMessage",
            }
        case "user":
            channel = USER_CHANNEL
            data = {"notificationType": "SingleStepTransferError", "errorCode": code, "errorMessage": text}
        case "event":
            data = {"messageType": "EventError", "error": {"errorCode": code, "errorMessage": text}}
    return channel, encode({"data": data, "channel": channel})
