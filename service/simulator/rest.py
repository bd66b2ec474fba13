"""The REST side of GWS: resources to read, operations to do, and the faults that can strike an operation.

An operation is carried out first and answered next; what it changed is told to the agents after the answer
has been written, as GWS does it most of the time (the fault `notification_first` turns that round).
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from service.simulator import operations
from service.simulator.agents import Agent
from service.simulator.connection import Answer, answer_json, break_off, send
from service.simulator.door import Door
from service.simulator.faults import COMMAND_KINDS, Fault
from service.simulator.messages import SAMPLE_RESPONSE, call_resource, device_resource, encode
from service.simulator.switch import Call, Leg, Refused, View
from service.simulator.truth import Command
from service.simulator.world import World

HTTP_STATUS = {1: 400, 2: 400, 3: 403, 4: 500, 5: 403, 6: 404, 8: 403, 10: 400, 18: 409, 20: 403}
"""The HTTP status that a refusal is sent with, by its statusCode; others 400 (assumed, see the switch
`errors_with_200`)."""

NEVER_EXECUTES = frozenset({"drop_before_execution", "silence", "error_notification", "reject"})
MAY_EXECUTE = frozenset({"http_500", "http_502", "no_status_code"})
BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>\n"


@dataclass(slots=True)
class _Running:
    """An operation between its execution and its answer; `views` are still to be told."""

    request: web.Request
    headers: CIMultiDict[str]
    command: Command
    call: Call
    leg: Leg
    answer: Answer
    views: list[View] = field(default_factory=list)


class Rest:
    """The handlers of `/api/v2`, CometD apart."""

    def __init__(self, world: World, door: Door) -> None:
        self._world = world
        self._door = door

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v2/diagnostics/version", self.version),
            web.get("/api/v2/me", self.me),
            web.post("/api/v2/me", self.contact_center_session),
            web.get("/api/v2/me/calls", self.calls),
            web.get("/api/v2/me/calls/{id}", self.call),
            web.post("/api/v2/me/calls/{id}", self.operate),
            web.post("/api/v2/me/devices/{id}/calls", self.dial),
        ]

    # Reading

    async def version(self, request: web.Request) -> web.StreamResponse:
        return await send(request, answer_json(200, {"statusCode": 0, "version": "8.5.202.96"}))

    async def me(self, request: web.Request) -> web.StreamResponse:
        agent, headers = self._door.enter(request)
        user: dict[str, Any] = {
            "id": agent.user_id,
            "userName": agent.number,
            "firstName": "Agent",
            "lastName": agent.number,
            "uri": f"{self._world.url}/api/v2/users/{agent.user_id}",
            "path": f"/users/{agent.user_id}",
        }
        wanted = request.query.get("subresources", "").split(",")
        if "devices" in wanted or "*" in wanted:
            user["devices"] = [device_resource(agent, self._world.url)]
        if "calls" in wanted or "*" in wanted:
            user["calls"] = self._calls_of(agent)
        return await send(request, answer_json(200, {"statusCode": 0, "user": user}), headers)

    async def calls(self, request: web.Request) -> web.StreamResponse:
        agent, headers = self._door.enter(request)
        calls = self._calls_of(agent)
        full = "fields" in request.query
        found = {"calls": calls} if full else {"uris": [call["uri"] for call in calls]}
        return await send(request, answer_json(200, {"statusCode": 0, **found}), headers)

    async def call(self, request: web.Request) -> web.StreamResponse:
        agent, headers = self._door.enter(request)
        try:
            call, leg = self._world.switch.leg(request.match_info["id"], agent.number)
        except Refused as refusal:
            return await send(request, self._refuse(refusal), headers)
        resource = self._render(self._world.switch.view(call, leg))
        return await send(request, answer_json(200, {"statusCode": 0, "call": resource}), headers)

    def _calls_of(self, agent: Agent) -> list[dict[str, Any]]:
        return [self._render(view) for view in self._world.switch.calls_of(agent.number)]

    def _render(self, view: View) -> dict[str, Any]:
        return call_resource(view, self._world.url, self._world.form)

    # Operating

    async def operate(self, request: web.Request) -> web.StreamResponse:
        """Do an operation on a call of the agent's."""
        agent, headers = self._door.enter(request)
        call_id = request.match_info["id"]
        command = await self._receive(request, agent, call_id)
        try:
            parameters = operations.parse(command.body)
            command.operation = parameters["operationName"]
            call, leg = self._world.switch.leg(call_id, agent.number)
        except Refused as refusal:
            return await self._send(request, command, self._refuse(refusal), headers)
        fault = self._world.faults.take(COMMAND_KINDS, command.operation, agent.number, call_id)
        command.fault = fault.kind if fault else None
        accepted = Answer(200, SAMPLE_RESPONSE) if call.sample else answer_json(200, {"statusCode": 0})
        running = _Running(request, headers, command, call, leg, accepted)
        if not fault or (
            fault.kind not in NEVER_EXECUTES and (fault.kind not in MAY_EXECUTE or fault.executed)
        ):
            try:
                running.views = self._world.execute(call, leg, parameters)
                command.executed = True
            except Refused as refusal:
                running.answer = self._refuse(refusal)
        if fault is not None:
            return await self._finish_faulty(running, fault)
        try:
            return await self._send(request, command, running.answer, headers)
        finally:
            self._world.tell(running.views)
            self._world.answer_soon(call)

    async def _finish_faulty(self, running: _Running, fault: Fault) -> web.StreamResponse:
        """Answer an operation and tell the agents as a fault wants it."""
        world, call = self._world, running.call
        if fault.kind == "notification_first":
            world.tell(running.views)
            running.views = []
        if fault.kind in ("notification_first", "late_answer"):
            await asyncio.sleep(fault.seconds)
        try:
            match fault.kind:
                case "drop_before_execution" | "drop_after_execution":
                    return break_off(running.request)
                case "http_500":
                    running.answer = answer_json(500, {"statusCode": 4, "statusMessage": fault.text})
                case "http_502":
                    running.answer = Answer(502, BAD_GATEWAY, "text/html")
                case "no_status_code":
                    running.answer = Answer(200, b"{}")
                case "reject":
                    running.answer = self._refuse(Refused(fault.status_code, fault.text))
                case _:
                    pass
            return await self._send(running.request, running.command, running.answer, running.headers)
        finally:
            world.tell(running.views)
            if fault.kind == "error_notification":
                world.report_error(fault, call, running.leg)
            elif fault.kind == "recall" and running.command.executed:
                world.recall_later(call, world.truth.transfers_of(call.id)[-1], fault.seconds)
            else:
                world.answer_soon(call)

    async def dial(self, request: web.Request) -> web.StreamResponse:
        """Place a call from the agent's device."""
        agent, headers = self._door.enter(request)
        command = await self._receive(request, agent, None)
        try:
            call, views = self._place(agent, request.match_info["id"], command)
        except Refused as refusal:
            return await self._send(request, command, self._refuse(refusal), headers)
        command.executed, command.call_id = True, call.id
        try:
            return await self._send(request, command, answer_json(200, {"statusCode": 0}), headers)
        finally:
            self._world.tell(views)
            self._world.answer_soon(call)

    def _place(self, agent: Agent, device_id: str, command: Command) -> tuple[Call, list[View]]:
        parameters = operations.parse(command.body)
        command.operation = parameters["operationName"]
        if device_id != agent.device_id:
            raise Refused(6, f"Device '{device_id}' not found.")
        if command.operation != "Dial":
            raise Refused(2, f"Operation '{command.operation}' is not supported.")
        destination, given = operations.phone_number(parameters), operations.user_data(parameters)
        return self._world.switch.place(agent.number, destination, user_data=given)

    async def contact_center_session(self, request: web.Request) -> web.StreamResponse:
        """Start or end the agent's session; the end takes the HTTP session with it."""
        agent, headers = self._door.enter(request)
        command = await self._receive(request, agent, None)
        try:
            starts = _starts_session(command)
        except Refused as refusal:
            return await self._send(request, command, self._refuse(refusal), headers)
        command.executed = True
        try:
            return await self._send(request, command, answer_json(200, {"statusCode": 0}), headers)
        finally:
            self._world.log_in(agent.number, present=starts)
            if not starts:
                self._world.logins.forget(agent.number)

    async def _receive(self, request: web.Request, agent: Agent, call_id: str | None) -> Command:
        command = Command(time.time(), agent.number, call_id, "", await request.read())
        self._world.truth.commands.append(command)
        return command

    async def _send(
        self, request: web.Request, command: Command, answer: Answer, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        response = await send(request, answer, headers)
        command.answer_status, command.answer_body = answer.status, answer.body
        command.answered_at = time.time()
        return response

    def _refuse(self, refusal: Refused) -> Answer:
        status = 200 if self._world.errors_with_200 else HTTP_STATUS.get(refusal.status_code, 400)
        body = {"statusCode": refusal.status_code, "statusMessage": refusal.message}
        return Answer(status, encode(body))


def _starts_session(command: Command) -> bool:
    """Tell StartContactCenterSession (True) from EndContactCenterSession; raises `Refused` for others."""
    parameters = operations.parse(command.body)
    command.operation = parameters["operationName"]
    if command.operation == "EndContactCenterSession":
        return False
    if command.operation != "StartContactCenterSession":
        raise Refused(2, f"Operation '{command.operation}' is not supported.")
    if not parameters.get("channels"):
        raise Refused(1, "Required parameter 'channels' is missing.")
    return True
