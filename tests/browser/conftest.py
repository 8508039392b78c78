"""Fixtures of the tests in a browser."""

from page_visits import browser, site, visitor

__all__ = ["browser", "site", "visitor"]
