"""The whole target suite in one namespace, for a test file to import.

Knows: its chapters. Does not know: anything else.
"""
# ruff: noqa: F403

from __future__ import annotations

from eventfold.testing.conformance.target.checkpoints import *
from eventfold.testing.conformance.target.commands import *
from eventfold.testing.conformance.target.failures import *
from eventfold.testing.conformance.target.generations import *
from eventfold.testing.conformance.target.keyed_rows import *
from eventfold.testing.conformance.target.leases import *
from eventfold.testing.conformance.target.queries import *
from eventfold.testing.conformance.target.records import *
from eventfold.testing.conformance.target.tables import *
from eventfold.testing.conformance.target.values import *
