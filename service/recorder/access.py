"""An agent's way to GWS, and the live list of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import aiohttp

from service.cometd import Client, Cookies, LongPolling, ResumeState, Timing
from service.config import Agent
from service.errors import TransportFailed
from service.gws import GwsClient, dialect


class Pace:
    """Lets `per_second` through, so that thousands of agents do not log in at once."""

    def __init__(self, per_second: float) -> None:
        self._step = 1 / per_second
        self._next = 0.0

    async def turn(self) -> None:
        now = asyncio.get_running_loop().time()
        mine = max(now, self._next)
        self._next = mine + self._step
        if mine > now:
            await asyncio.sleep(mine - now)


@dataclass(frozen=True)
class Pacing:
    """How fast sessions begin: new ones slowly; those to go on with before the server gives them up.

    `timing`: how patient each of them is.
    """

    openings: Pace
    resumptions: Pace
    timing: Timing


@dataclass(frozen=True)
class Access:
    """REST client and CometD of one agent share credentials, CSRF token and cookies."""

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

    def connect(
        self,
        pacing: Pacing,
        idle: Callable[[], Awaitable[None]],
        *,
        resume: ResumeState | None = None,
        acked: int = 0,
    ) -> Client:
        """A CometD client that logs in by a GET first: it brings the cookie and the CSRF token.

        `idle` is awaited between polls that bring nothing.
        """

        async def prepare() -> None:
            await pacing.openings.turn()
            answer = await self.gws.me()
            if answer.http_status in {401, 403}:
                raise TransportFailed(
                    f"GWS does not know the user or the password: {answer.message}",
                    status=answer.http_status,
                )

        transport = LongPolling(
            self.http,
            self.gws.base_url + dialect.NOTIFICATIONS,
            cookies=self.cookies,
            credentials=self.gws,
        )
        return Client(
            transport,
            dialect.SUBSCRIPTIONS,
            timing=pacing.timing,
            prepare=prepare,
            idle=idle,
            resume=resume,
            acked=acked,
        )


class Accesses(Mapping[str, Access]):
    """The accesses by user name. The list changes while others look at it."""

    def __init__(self, make: Callable[[Agent], Access], agents: Iterable[Agent]) -> None:
        self._make = make
        self._by_user = {agent.user: make(agent) for agent in agents}

    def __getitem__(self, user: str) -> Access:
        return self._by_user[user]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_user)

    def __len__(self) -> int:
        return len(self._by_user)

    def replace(self, agents: list[Agent]) -> set[str]:
        """Have these agents and no others; the names of those that were added, removed or changed."""
        wanted = {agent.user: agent for agent in agents}
        gone = self._by_user.keys() - wanted.keys()
        changed = {
            user
            for user, agent in wanted.items()
            if user not in self._by_user or self._by_user[user].agent != agent
        }
        for user in gone:
            del self._by_user[user]
        for user in changed:
            self._by_user[user] = self._make(wanted[user])
        return gone | changed


class Clients(Mapping[str, GwsClient]):
    """The REST clients of `accesses`, live."""

    def __init__(self, accesses: Mapping[str, Access]) -> None:
        self._accesses = accesses

    def __getitem__(self, user: str) -> GwsClient:
        return self._accesses[user].gws

    def __iter__(self) -> Iterator[str]:
        return iter(self._accesses)

    def __len__(self) -> int:
        return len(self._accesses)
