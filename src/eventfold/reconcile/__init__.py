"""Reconciliation: counts and sums of events by key and by period, compared with a system outside."""

from eventfold.reconcile.compare import reconcile
from eventfold.reconcile.facts import NotReconciled, Reconciled
from eventfold.reconcile.measures import Ours, Theirs
from eventfold.reconcile.result import Difference, Result
from eventfold.reconcile.schedule import recorded

__all__ = ["Difference", "NotReconciled", "Ours", "Reconciled", "Result", "Theirs", "reconcile", "recorded"]
