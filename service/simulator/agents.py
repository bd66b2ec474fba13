"""The agents: who may log in, and the device each of them sits at."""

import base64
import random
import uuid
from dataclasses import dataclass

SAMPLE_DEVICE = "631608b3-ceb1-472b-ba05-2ae39555b0d1"
"""The device of agent 15000 in the published samples of SingleStepTransfer."""


@dataclass(slots=True)
class Agent:
    """A GWS user with one voice device; `number` is the device's phone number and the user's name."""

    number: str
    password: str
    user_id: str
    device_id: str
    logged_in: bool = False

    @property
    def authorization(self) -> str:
        """The value of the Authorization header with which this agent is let in."""
        return "Basic " + base64.b64encode(f"{self.number}:{self.password}".encode()).decode()


def make_agents(seed: int, first: int, count: int) -> dict[str, Agent]:
    """Give `count` agents from number `first` on, by number; ids depend on the seed and the number alone."""
    agents = {}
    for number in map(str, range(first, first + count)):
        rng = random.Random(f"{seed}/{number}")
        drawn = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        agents[number] = Agent(
            number=number,
            password=f"secret-{number}",
            user_id=f"{rng.getrandbits(128):032x}",
            device_id=SAMPLE_DEVICE if number == "15000" else drawn,
        )
    return agents
