"""What Genesys Web Services mean: messages, resources, status codes, and the REST client."""

from service.gws.answers import Answer, Verdict
from service.gws.client import GwsClient
from service.gws.messages import Call, Notification

__all__ = ["Answer", "Call", "GwsClient", "Notification", "Verdict"]
