"""The whole suite in one namespace, for a test file to import.

Knows: its chapters. Does not know: anything else.
"""
# ruff: noqa: F403

from __future__ import annotations

from eventfold.testing.conformance.after_pending import *
from eventfold.testing.conformance.append import *
from eventfold.testing.conformance.bad_input import *
from eventfold.testing.conformance.capabilities import *
from eventfold.testing.conformance.conditions import *
from eventfold.testing.conformance.copying import *
from eventfold.testing.conformance.cursors import *
from eventfold.testing.conformance.decide import *
from eventfold.testing.conformance.envelopes import *
from eventfold.testing.conformance.epochs import *
from eventfold.testing.conformance.follow import *
from eventfold.testing.conformance.group_commit import *
from eventfold.testing.conformance.idempotency import *
from eventfold.testing.conformance.inline import *
from eventfold.testing.conformance.large_queries import *
from eventfold.testing.conformance.locks import *
from eventfold.testing.conformance.metadata import *
from eventfold.testing.conformance.paging import *
from eventfold.testing.conformance.reading import *
from eventfold.testing.conformance.receipts import *
from eventfold.testing.conformance.replica import *
from eventfold.testing.conformance.round_trips import *
from eventfold.testing.conformance.snapshots import *
from eventfold.testing.conformance.states import *
from eventfold.testing.conformance.summaries import *
from eventfold.testing.conformance.time import *
from eventfold.testing.conformance.time_zones import *
from eventfold.testing.conformance.unconfirmed import *
