"""The page at `/`: a visitor asks, and sees the way of the request and the cluster.

Static files, served as they are. The page knows the server by its public HTTP alone.
"""

from epd.gateway.page.files import HEADERS, PATHS, page_routes

__all__ = ["HEADERS", "PATHS", "page_routes"]
