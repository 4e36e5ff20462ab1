"""The error of a consumer whose lease another server has.

Knows: error codes. Does not know: statuses (problems.py has them).
"""

from __future__ import annotations

from eventfold.errors import EventfoldError


class ConsumerElsewhere(EventfoldError):
    """Another server owns the consumer, or owned it a moment ago. Nothing was changed. Fields: ``name``, ``holder``."""

    code = "consumer-elsewhere"
