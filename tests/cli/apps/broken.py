"""A module that cannot be imported."""

from __future__ import annotations

raise ZeroDivisionError("the module does this by itself")
