"""The expiry of calibrations, as a timer that survives restarts: a person is to know before the meter bills nothing.

Knows: the calibrations of app.py, timers. Does not know: bills.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import eventfold as ef
from eventfold.processes import at
from examples.fields.meters.app import MeterCalibrated

NOTICE = timedelta(days=30)


class CalibrationDue(ef.Event):
    """A timer: the certificate expires in thirty days."""

    meter: ef.Tag
    certificate: ef.Tag


class CalibrationExpired(ef.Event):
    """A timer: readings from now on are kept, and not billed."""

    meter: ef.Tag
    certificate: ef.Tag


class Expiry(ef.Process, start="beginning", name="calibration_expiry"):
    """Watches one certificate."""

    certificate: ef.Tag

    def evolve(self, event: MeterCalibrated) -> None:
        """The certificate alone says when it expires."""

    def react(self, event: MeterCalibrated) -> Iterator[Any]:
        """Set both timers."""
        yield at(CalibrationDue(event.meter, self.certificate), event.valid_until - NOTICE)
        yield at(CalibrationExpired(event.meter, self.certificate), event.valid_until)
