"""Fixtures of the browser tests."""

from browser import chromium  # noqa: F401
