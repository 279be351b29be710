"""Show the service to people: four pages to inspect, to teach, to look back and to watch."""

from anomalens.serving.page.router import error_page, page_router

__all__ = ["error_page", "page_router"]
