"""The CometD endpoint on HTTP: one POST in, one response out, harmed where a fault wants it."""

import asyncio

from aiohttp import web
from multidict import CIMultiDict

from service.simulator.bayeux import COOKIE, Reply
from service.simulator.connection import Answer, break_off, send, send_half
from service.simulator.door import Door
from service.simulator.world import World

UNAVAILABLE = b"<html><head><title>Service Unavailable</title></head><body></body></html>\n"


class Notifications:
    """The handler of `/api/v2/notifications`; clients may append the kind of message to the path."""

    def __init__(self, world: World, door: Door) -> None:
        self._world = world
        self._door = door

    def routes(self) -> list[web.RouteDef]:
        path = "/api/v2/notifications"
        return [web.post(path, self.post), web.post(path + "/{kind:[a-z]*}", self.post)]

    async def post(self, request: web.Request) -> web.StreamResponse:
        agent, headers = self._door.enter(request)
        body = await request.read()
        reply = await self._world.bayeux.handle(agent.number, request.cookies.get(COOKIE), body)
        if reply.browser is not None:
            headers.add("Set-Cookie", f"{COOKIE}={reply.browser}; Path=/; HttpOnly")
        return await self._respond(request, reply, headers)

    async def _respond(
        self, request: web.Request, reply: Reply, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        answer = Answer(reply.status, reply.body)
        harm = reply.fault.kind if reply.fault else None
        if reply.status == 0 or harm == "lose_response":
            return break_off(request)
        if harm == "cut_response":
            return await send_half(request, answer, headers)
        if reply.fault and harm == "http_error":
            return await send(request, Answer(reply.fault.http_status, UNAVAILABLE, "text/html"), headers)
        if harm == "garble_response":
            return await send(request, Answer(reply.status, reply.body[: len(reply.body) // 2]), headers)
        if reply.fault and harm == "delay_response":
            await asyncio.sleep(reply.fault.seconds)
        response = await send(request, answer, headers)
        for delivery in reply.deliveries:
            delivery.responses += 1
        if harm == "close_after_response":
            break_off(request)
        return response
