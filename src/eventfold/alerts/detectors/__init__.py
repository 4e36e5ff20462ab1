"""Detectors: statistics of plain data, folded from events, each with a pure verdict."""

from eventfold.alerts.detectors.absence import Absence, absence
from eventfold.alerts.detectors.detector import Detector
from eventfold.alerts.detectors.drift import Drift, drift
from eventfold.alerts.detectors.outlier import Outlier, outlier
from eventfold.alerts.detectors.rate import Rate, rate
from eventfold.alerts.detectors.seasonal import Seasonal, seasonal

__all__ = [
    "Absence",
    "Detector",
    "Drift",
    "Outlier",
    "Rate",
    "Seasonal",
    "absence",
    "drift",
    "outlier",
    "rate",
    "seasonal",
]
