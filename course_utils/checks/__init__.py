"""Checks of the exercises: ``check("03-rate", convergence_rate)``. How they work, and how to write one: see core.py."""

from course_utils.checks.core import check

__all__ = ["check"]
