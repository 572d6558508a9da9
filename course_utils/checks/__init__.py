"""Checks of the exercises: ``check("3.2", rounds_needed)``. How they work, and how to write one: see core.py."""

from course_utils.checks.core import check

__all__ = ["check"]
