"""The door: each request is identified here, and the headers it is answered with are made here."""

from aiohttp import web
from multidict import CIMultiDict

from service.simulator.agents import Agent
from service.simulator.logins import COOKIE, CSRF_HEADER, CsrfMissing, Denied
from service.simulator.world import World


class Door:
    """Lets agents in."""

    def __init__(self, world: World) -> None:
        self._world = world

    def enter(self, request: web.Request) -> tuple[Agent, CIMultiDict[str]]:
        """Give the agent who sent a request, and the headers for the answer.

        Raises HTTPForbidden, ready to be sent, when it is refused.
        """
        is_get = request.method == "GET"
        try:
            session, is_new = self._world.logins.identify(
                is_get=is_get,
                authorization=request.headers.get("Authorization"),
                session_id=request.cookies.get(COOKIE),
                token=request.headers.get(CSRF_HEADER),
                csrf=self._world.csrf,
            )
        except Denied:
            denied = '{"statusCode":20,"statusMessage":"Access denied"}'
            raise web.HTTPForbidden(text=denied, content_type="application/json") from None
        except CsrfMissing:
            raise web.HTTPForbidden(text="Missing or invalid Csrf token") from None
        headers: CIMultiDict[str] = CIMultiDict()
        if is_new:
            headers.add("Set-Cookie", f"{COOKIE}={session.session_id}; Path=/; HttpOnly")
        if self._world.csrf and is_get:
            headers.update({"X-CSRF-HEADER": CSRF_HEADER, CSRF_HEADER: session.csrf_token})
        return session.agent, headers
