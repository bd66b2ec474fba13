"""Text that Postgres can hold: NUL and halves of a character are refused, by the name of the field."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, field_validator

from service.errors import BadInput
from service.projections import storable

COMPLAINT = "holds NUL or half a character"
REMEDY = "Leave it out"


class RequestBody(BaseModel):
    """What a request's body holds, and nothing beside it."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if isinstance(value, str | list) and storable(value) != value:
            raise ValueError(f"{COMPLAINT}. {REMEDY}")
        return value


async def storable_parameters(request: Request) -> None:
    """Let no text of the path or the query through that Postgres cannot hold.

    Raises:
        BadInput: names the parameter.

    """
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        if storable(name) != name or storable(value) != value:
            raise BadInput(ascii(name)[1:-1], COMPLAINT, REMEDY)
