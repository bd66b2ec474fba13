"""The HTTP face: the drop-in endpoint of GWS, and calltrail's own resources under ``/v1``."""

from service.api.application import Services, create_api

__all__ = ["Services", "create_api"]
