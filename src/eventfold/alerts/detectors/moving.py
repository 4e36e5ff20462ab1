"""Exponentially weighted mean and variance: one step, with numbers rounded so that they are short as JSON.

Knows: arithmetic. Does not know: any detector.
"""

from __future__ import annotations


def moved(mean: float, variance: float, value: float, weight: float) -> tuple[float, float]:
    """Return mean and variance after a value of this weight, in (0, 1]; of weight 1/n they are those of n values."""
    difference = value - mean
    step = weight * difference
    return mean + step, (1 - weight) * (variance + difference * step)


def short(value: float) -> float:
    """Return a number rounded to seven digits that count."""
    return float(f"{value:.7g}")


__all__ = ["moved", "short"]
