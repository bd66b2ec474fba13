"""Operations on calls: from the JSON of a request to a change in the switch, with GWS's checks.

Facts: document `gws-voice-api`, sections 2.2 and 6.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from service.simulator.switch import Call, Leg, Refused, Switch, UserData, View


def parse(body: bytes) -> dict[str, Any]:
    """Parse the body of an operation; raises `Refused` 2 when it is not an object, 1 without a name."""
    try:
        parameters = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Refused(2, f"The body is not a JSON object: {error}") from error
    if not isinstance(parameters.get("operationName"), str):
        raise Refused(1, "Required parameter 'operationName' is missing.")
    return parameters


def phone_number(parameters: dict[str, Any]) -> str:
    """Read `destination.phoneNumber`; raises `Refused` 1 when it is missing, 2 when it is no string."""
    destination = parameters.get("destination")
    number = destination.get("phoneNumber") if isinstance(destination, dict) else None
    if number is None or number == "":
        raise Refused(1, "Required parameter 'destination.phoneNumber' is missing.")
    if not isinstance(number, str):
        raise Refused(2, "Parameter 'destination.phoneNumber' is not a string.")
    return number


def user_data(parameters: dict[str, Any], *, required: bool = False) -> UserData:
    """Read `userData`; raises `Refused` 1 when it is required and missing, 2 when it is no object."""
    given = parameters.get("userData")
    if given is None and not required:
        return []
    if given is None:
        raise Refused(1, "Required parameter 'userData' is missing.")
    if not isinstance(given, dict):
        raise Refused(2, "Parameter 'userData' is not an object.")
    return list(given.items())


def _text(parameters: dict[str, Any], name: str) -> str:
    value = parameters.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(1, f"Required parameter '{name}' is missing.")
    return value


def execute(switch: Switch, call: Call, leg: Leg, parameters: dict[str, Any]) -> list[View]:
    """Do one operation; gives what is to be told, raises `Refused` with nothing changed."""
    name = parameters["operationName"]
    operation = OPERATIONS.get(name)
    if operation is None:
        raise Refused(2, f"Operation '{name}' is not supported.")
    return operation(switch, call, leg, parameters)


def _single_step_transfer(switch: Switch, call: Call, leg: Leg, given: dict[str, Any]) -> list[View]:
    return switch.single_step_transfer(call, leg, phone_number(given), user_data(given))


def _single_step_conference(switch: Switch, call: Call, leg: Leg, given: dict[str, Any]) -> list[View]:
    return switch.single_step_conference(call, leg, phone_number(given), user_data(given))


def _initiate_transfer(switch: Switch, call: Call, leg: Leg, given: dict[str, Any]) -> list[View]:
    return switch.initiate_transfer(call, leg, phone_number(given), user_data(given))[1]


def _send_dtmf(_switch: Switch, _call: Call, _leg: Leg, given: dict[str, Any]) -> list[View]:
    _text(given, "digits")
    return []


def _attach(switch: Switch, call: Call, _leg: Leg, given: dict[str, Any]) -> list[View]:
    return switch.change_user_data(call, given["operationName"], user_data(given, required=True))


OPERATIONS: dict[str, Callable[[Switch, Call, Leg, dict[str, Any]], list[View]]] = {
    "Answer": lambda switch, call, leg, _: switch.answer(call, leg),
    "Hangup": lambda switch, call, leg, _: switch.hangup(call, leg),
    "ClearCall": lambda switch, call, _leg, _: switch.clear(call),
    "Hold": lambda switch, call, leg, _: switch.hold(call, leg),
    "Retrieve": lambda switch, call, leg, _: switch.retrieve(call, leg),
    "SendDtmf": _send_dtmf,
    "SingleStepTransfer": _single_step_transfer,
    "SingleStepConference": _single_step_conference,
    "InitiateTransfer": _initiate_transfer,
    "CompleteTransfer": lambda switch, call, leg, _: switch.complete_transfer(call, leg),
    "RemoveParticipantFromConference": lambda switch, call, leg, given: switch.remove_participant(
        call, leg, _text(given, "participant")
    ),
    "AttachUserData": _attach,
    "UpdateUserData": _attach,
    "DeleteUserData": lambda switch, call, _leg, _: switch.change_user_data(call, "DeleteUserData", []),
    "DeleteUserDataPair": lambda switch, call, _leg, given: switch.change_user_data(
        call, "DeleteUserDataPair", [], _text(given, "key")
    ),
}
"""The operations on a call that are simulated."""
