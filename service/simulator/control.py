"""The control side, `/sim/…`: what a test in the same process does with the `Simulator`, over HTTP.

No credentials are asked for: the simulator listens on loopback. A bad request is answered 400 with `error`.

| request | what it does |
|---|---|
| GET `/sim/truth?part=transfers,commands` | the truth, or parts of it (also `published`, `sessions`) |
| GET `/sim/agents` | the agents with their passwords and devices |
| GET `/sim/calls` | every call with the states of its legs |
| GET, POST, DELETE `/sim/faults` | list the faults and their strikes; add one (fields of `Fault`); clear |
| POST `/sim/calls` | `caller`, `agent`, optional `call_id`, `conn_id`, `user_data`: place a call |
| POST `/sim/calls/{id}` | `agent`, `operationName`, its parameters: operate without REST |
| POST `/sim/sample-calls` | place the two calls of the published samples |
| POST `/sim/kill`, `/sim/expire` | `agent`: forget his CometD or HTTP sessions |
| POST `/sim/restart` | forget all sessions |
| POST `/sim/inject` | `agent`, `element` (text), optional `channel`: queue an array element as it is |
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web

from service.simulator.faults import Fault
from service.simulator.messages import CALLS_CHANNEL, encode
from service.simulator.switch import Call, Refused
from service.simulator.world import World


class _Place(msgspec.Struct, forbid_unknown_fields=True):
    caller: str
    agent: str
    call_id: str | None = None
    conn_id: str | None = None
    user_data: dict[str, Any] | None = None


class _Agent(msgspec.Struct, forbid_unknown_fields=True):
    agent: str


class _Inject(msgspec.Struct, forbid_unknown_fields=True):
    agent: str
    element: str
    channel: str = CALLS_CHANNEL


class Control:
    """The handlers of `/sim`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[web.RouteDef]:
        world = self._world
        return [
            web.get("/sim/truth", self._truth),
            web.get("/sim/agents", _handler(lambda _: [asdict(agent) for agent in world.agents.values()])),
            web.get("/sim/calls", _handler(lambda _: [_outline(call) for call in world.calls.values()])),
            web.get("/sim/faults", _handler(lambda _: self._faults())),
            web.post("/sim/faults", _handler(self._add_fault)),
            web.delete("/sim/faults", _handler(lambda _: world.faults.clear())),
            web.post("/sim/calls", _handler(self._place)),
            web.post("/sim/calls/{id}", self._operate),
            web.post("/sim/sample-calls", _handler(lambda _: self._place_samples())),
            web.post("/sim/kill", _handler(lambda body: world.kill_session(_agent(body)))),
            web.post("/sim/expire", _handler(lambda body: world.expire_http_session(_agent(body)))),
            web.post("/sim/restart", _handler(lambda _: world.restart())),
            web.post("/sim/inject", _handler(self._inject)),
        ]

    async def _truth(self, request: web.Request) -> web.Response:
        everything = self._world.truth.as_json()
        parts = request.query.get("part", ",".join(everything)).split(",")
        return _json({part: everything[part] for part in parts if part in everything})

    async def _operate(self, request: web.Request) -> web.Response:
        body = await request.read()

        def do(_: bytes) -> None:
            parameters = msgspec.json.decode(body, type=dict[str, Any])
            if not {"agent", "operationName"} <= parameters.keys():
                raise Refused(1, "'agent' and 'operationName' are needed")
            agent, operation = parameters.pop("agent"), parameters.pop("operationName")
            self._world.operate(request.match_info["id"], agent, operation, **parameters)

        return _try(do, body)

    def _faults(self) -> dict[str, Any]:
        faults = self._world.faults
        return {"waiting": [asdict(fault) for fault in faults.waiting], "struck": dict(faults.struck)}

    def _add_fault(self, body: bytes) -> dict[str, Any]:
        fault = msgspec.json.decode(body, type=Fault)
        self._world.faults.waiting.append(fault)
        return asdict(fault)

    def _place(self, body: bytes) -> dict[str, Any]:
        place = msgspec.json.decode(body, type=_Place)
        return _outline(
            self._world.place_call(
                place.caller,
                place.agent,
                call_id=place.call_id,
                conn_id=place.conn_id,
                user_data=place.user_data,
            )
        )

    def _place_samples(self) -> list[dict[str, Any]]:
        return [_outline(call) for call in self._world.place_sample_calls()]

    def _inject(self, body: bytes) -> None:
        given = msgspec.json.decode(body, type=_Inject)
        self._world.inject(given.agent, given.element.encode(), given.channel)


def _outline(call: Call) -> dict[str, Any]:
    legs = [{"number": leg.number, "deviceId": leg.device_id, "state": leg.state} for leg in call.legs]
    return {"id": call.id, "callUuid": call.uuid, "connId": call.conn_id, "legs": legs}


def _agent(body: bytes) -> str:
    return msgspec.json.decode(body, type=_Agent).agent


def _handler(do: Callable[[bytes], Any]) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        return _try(do, await request.read())

    return handle


def _try(do: Callable[[bytes], Any], body: bytes) -> web.Response:
    try:
        return _json(do(body))
    except (msgspec.MsgspecError, Refused, ValueError) as error:
        return _json({"error": str(error)}, 400)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=encode(value), content_type="application/json")
