"""The web page: server-rendered, without a build step, and without anything from elsewhere.

Each page is a module: a data function that asks the rooms below, and a route that hands its answer to a
template. `frame` has what they share, `timeline` and `charts` compute drawings, the templates draw them.
"""

from service.web.site import create_site

__all__ = ["create_site"]
