"""All agents' recordings in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from service.cometd import Client, Cookies, LongPolling
from service.config import Agent
from service.errors import GwsError, TransportFailed
from service.gws import GwsClient, dialect
from service.log import EventLog
from service.recorder.session import AgentRecorder

CLOSING_S = 5.0  # how long a clean end of all sessions may take


@dataclass(frozen=True)
class Access:
    """An agent's way to GWS: REST client and CometD share credentials, CSRF token and cookies."""

    agent: Agent
    gws: GwsClient
    cookies: Cookies
    http: aiohttp.ClientSession

    @classmethod
    def of(cls, agent: Agent, http: aiohttp.ClientSession, gws_url: str, *, timeout_s: float) -> Access:
        cookies = Cookies()
        password = agent.password.get_secret_value()
        gws = GwsClient(http, gws_url, agent.user, password, cookies=cookies, timeout_s=timeout_s)
        return cls(agent, gws, cookies, http)

    def connect(self) -> Client:
        """A CometD client that logs in by a GET first: it brings the cookie and the CSRF token."""
        transport = LongPolling(
            self.http,
            self.gws.base_url + dialect.NOTIFICATIONS,
            cookies=self.cookies,
            credentials=self.gws,
        )
        return Client(transport, dialect.SUBSCRIPTIONS, prepare=self._prepare)

    async def _prepare(self) -> None:
        try:
            answer = await self.gws.me()
        except GwsError as error:
            raise TransportFailed(str(error), sent=False) from error
        if answer.http_status in {401, 403}:
            raise TransportFailed(
                f"GWS does not know the user or the password: {answer.message}", status=answer.http_status
            )


class Recorder:
    """Records the agents of `accesses`, by user name."""

    def __init__(self, log: EventLog, accesses: Mapping[str, Access]) -> None:
        self.agents: Sequence[AgentRecorder] = [
            AgentRecorder(access.agent, access.gws, log, access.connect) for access in accesses.values()
        ]

    def start(self) -> None:
        for agent in self.agents:
            agent.loop.start()

    async def stop(self) -> None:
        """End every session in good order; what does not end in time is left to expire at GWS."""
        for agent in self.agents:
            agent.close()
        waiting = [asyncio.create_task(agent.loop.ended()) for agent in self.agents]
        if waiting:
            await asyncio.wait(waiting, timeout=CLOSING_S)
        for task in waiting:
            task.cancel()
        for agent in self.agents:
            await agent.loop.stop()
