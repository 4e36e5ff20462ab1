"""`eventfold migrate`: its commands in the order in which a migration takes them.

Knows: which there are. Does not know: what they do.
"""

from __future__ import annotations

from eventfold.cli.command import Command, help_text
from eventfold.cli.migrate import migrate
from eventfold.cli.migration_compare import compare
from eventfold.cli.migration_steps import capture, load, status
from eventfold.cli.migration_switch import cutover, rollback

__all__ = ["migrate"]

for step in (load, capture, compare, cutover, rollback, status):
    migrate.command(step.__name__, cls=Command, help=help_text(step.__doc__))(step)
