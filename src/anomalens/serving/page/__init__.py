"""Show the service to people: four pages to inspect, to teach, to look back and to watch."""

from anomalens.serving.page.router import page_router

__all__ = ["page_router"]
