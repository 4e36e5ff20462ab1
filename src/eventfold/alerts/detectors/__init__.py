"""Detectors: statistics of plain data, folded from events, each with a pure verdict."""

from eventfold.alerts.detectors.detector import Detector
from eventfold.alerts.detectors.rate import Rate, rate

__all__ = ["Detector", "Rate", "rate"]
