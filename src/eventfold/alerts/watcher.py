"""The watcher of one partition of an alert's rows: turns changes of verdicts into facts, and asks rows that are due.

The order is: fold a page, append its facts, store the rows and the checkpoint. After a crash between the two, the same
page gives the same facts, whose ids the log has. Rows that are due are asked in copies, which are not stored: the next
event of the key passes the same moments. While a rule has not reached the head of the log for the first time, nothing
becomes a fact; then `$alert-watching` is appended together with the facts by which the open episodes of the log become
those of the rule.
Knows: rows, facts, the order of these steps. Does not know: threads, leases, how rows and facts are stored.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

from eventfold.alerts.ask_clock import AskClock
from eventfold.alerts.episode_log import EpisodeLog, Step, WrittenEpisodes
from eventfold.alerts.facts import AlertWatching, Severity, episode_key, key_text_of
from eventfold.alerts.rows import BEFORE_ALL, AlertRow, Change, RulePlan, row_class_of
from eventfold.core.table import RowCodec, Table
from eventfold.core.value_order import key_text, partition_of
from eventfold.ports.target import Checkpoint, PartitionKey
from eventfold.projections.definition import Key, ProjectionDefinition
from eventfold.projections.failures import describe_error
from eventfold.projections.page import HandlerFailed
from eventfold.projections.partition_lease import WorkerContext
from eventfold.selection.conditions import AllOf, Compare, Condition, Missing, OrderTerm, RowQuery

ASK_EVERY_S = 0.9  # between statements that look for rows that are due
PAGE_ROWS = 10_000  # of one statement
NO_RULE = ""  # of a mark after which nothing becomes a fact, until a rule has settled
CHANGED_RULE = "The rule changed, and the new one is satisfied."


class AlertWatcher:
    """See RowWatcher. `plan`: of the rule."""

    def __init__(
        self,
        plan: RulePlan,
        severity: Severity,
        definition: ProjectionDefinition,
        context: WorkerContext,
        partition_key: PartitionKey,
    ) -> None:
        assert definition.rows is not None
        self._plan, self._definition, self._context, self._place = plan, definition, context, partition_key
        self._codec: RowCodec = definition.rows
        self._table: Table = self._codec.of_generation(partition_key.generation)
        self._columns = {column.name: column for column in self._table.columns}
        self._episodes = EpisodeLog(context.log, plan.name, severity, plan.subject)
        self._clock = AskClock(context.wall_clock)
        self._is_live = False
        self._asked_at = float("-inf")  # by the monotonic clock
        self._asked_through = BEFORE_ALL  # rows that were due up to this moment were asked
        self._later: list[tuple[int, Key]] = []  # a heap: when rows that were asked are due again, although unchanged
        self._next: dict[Key, int] = {}  # the same by key, without outdated entries of the heap
        self._failed = set[Key]()  # keys of which the rule failed as time passed, each reported once
        self._unseen: AlertRow | None = None  # the row of an alert without a key, before its first event

    async def begin(self, checkpoint: Checkpoint) -> None:
        """See RowWatcher."""
        self._is_live = self._is_live_now(checkpoint)
        if self._is_live:
            await self._episodes.read()
            await self._note_lost_rows(checkpoint)
        self._forget_asked()

    async def _note_lost_rows(self, checkpoint: Checkpoint) -> None:
        """Append a mark of no rule if the rows begin before the mark of the rule: they were removed, or are a backup.

        So they are folded in silence, through crashes too, like those of a rule that is run for the first time.
        """
        last = self._episodes.written.watching.get(self._place.partition)
        if last is None or not self._is_watching(self._episodes.written) or checkpoint.position >= last.after:
            return
        mark = AlertWatching(
            self._plan.name, NO_RULE, 0, self._place.partition, checkpoint.position, self._context.wall_clock()
        )
        await self._episodes.append((), mark, goes_on=self._is_watching)

    def _is_live_now(self, checkpoint: Checkpoint) -> bool:
        record = self._context.target.record(self._place.name)
        return record is not None and record.live == self._place.generation and checkpoint.until is None

    def _is_watching(self, written: WrittenEpisodes) -> bool:
        """Whether what this rule finds becomes facts: of the rules that have watched this partition, it is the last."""
        last = written.watching.get(self._place.partition)
        return last is not None and (last.rule, last.generation) == (
            self._definition.fingerprint,
            self._place.generation,
        )

    # Events

    async def before_commit(self, rows: Iterable[tuple[Key, Any]]) -> None:
        """See RowWatcher."""
        watching = self._is_live and self._is_watching(self._episodes.written)
        is_open = self._episodes.written.open
        steps: list[Step] = []
        for key, row in rows:
            if row is None:
                continue
            if row.due is not None and row.due <= self._asked_through:
                self._asked_through = row.due - 1
            self._unseen = None
            changes = row.take_changes() if row.changes is not None else ()
            if watching and (changes or (is_open and row.raised_at is None)):
                text = self._text(key)
                steps += [Step(text, change) for change in changes]
                if row.raised_at is None and text in is_open:  # raised by a row that is replaced, or by an early clock
                    steps.append(Step(text, Change("cleared", row.clock, "", "The rule is satisfied.")))
        if steps:
            steps.sort(key=lambda step: step.change.at)
            await self._episodes.append(steps, goes_on=self._is_watching)

    def _text(self, key: Key) -> str:
        return episode_key(key) if self._plan.is_keyed else ""

    # Time

    async def at_head(self, checkpoint: Checkpoint) -> None:
        """See RowWatcher."""
        if not self._is_live:
            return
        if not self._is_watching(self._episodes.written):
            if not self._is_live_now(checkpoint):
                self._is_live = False
                return
            await self._settle(checkpoint)
        now = time.monotonic()
        if now - self._asked_at < ASK_EVERY_S and self._clock.is_wall_clock:
            return
        self._asked_at = now
        await self._ask(self._clock.now())

    def _forget_asked(self) -> None:
        self._asked_through, self._later, self._next, self._unseen = BEFORE_ALL, [], {}, None
        self._asked_at = float("-inf")

    async def _ask(self, now: int) -> None:
        """Pass the moments up to `now` with copies of the rows that are due, and append the facts of their changes."""
        steps = [Step(self._text(key), change) for key, row in self._asked(now) for change in row.take_changes()]
        if steps:
            steps.sort(key=lambda step: step.change.at)
            await self._episodes.append(steps, goes_on=self._is_watching)

    def _asked(self, now: int) -> Iterator[tuple[Key, AlertRow]]:
        """Pass the moments up to `now` with copies of the rows that are due; yield each with its key."""
        again: list[Key] = []
        while self._later and self._later[0][0] <= now:
            moment, key = heapq.heappop(self._later)
            if self._next.get(key) == moment:
                del self._next[key]
                again.append(key)
        due = self._columns["due"]
        newly = AllOf((Compare(due, ">", self._asked_through), Compare(due, "<=", now)))
        seen = set[Key]()
        for key, row in (*self._found(newly), *self._loaded(again)):
            if key in seen:
                continue
            seen.add(key)
            stored = row.due
            if not self._passes(key, row, now):
                continue
            if row.due is not None and row.due != stored:
                self._next[key] = row.due
                heapq.heappush(self._later, (row.due, key))
            yield key, row
        self._asked_through = max(self._asked_through, now)
        if (row := self._unseen_row()) is not None and self._passes((self._plan.name,), row, now):
            yield (self._plan.name,), row

    def _passes(self, key: Key, row: AlertRow, now: int) -> bool:
        """Pass the moments of a copy up to `now`. False: the rule failed, and where events are parked others go on.

        The key's next event meets the same moments, and is parked. Raises HandlerFailed where failures stop the rule.
        """
        try:
            row.pass_moments(now)
        except self._context.catches as error:
            failed = HandlerFailed(None, error, f"judge of {key_text(key)} as time passed")
            if self._definition.on_error != "park":
                raise failed from error
            if key not in self._failed:
                self._failed.add(key)
                logging.getLogger("eventfold").warning(
                    "%s failed in %s: %s. Its next event will be parked.",
                    self._plan.name,
                    failed.handler,
                    describe_error(failed).rstrip("."),
                )
            return False
        return True

    def _found(self, condition: Condition) -> Iterator[tuple[Key, AlertRow]]:
        """Yield the rows of this partition that satisfy a condition on `due`, by `due`."""
        order = tuple(OrderTerm(self._columns[name]) for name in ("due", *self._table.key))
        after: tuple[Any, ...] | None = None
        while True:
            page = self._context.target.find(self._table, RowQuery(condition, order, after, PAGE_ROWS))
            rows = self._codec.unpack_all(page)
            partitions = self._definition.partitions
            for key, row in zip(self._codec.keys_of(rows), rows, strict=True):
                if partitions == 1 or partition_of(key, partitions) == self._place.partition:
                    yield key, row
            if len(page) < PAGE_ROWS:
                return
            after = (rows[-1].due, *self._codec.key_of(rows[-1]))

    def _loaded(self, keys: list[Key]) -> Iterator[tuple[Key, AlertRow]]:
        if keys:
            rows = self._codec.unpack_all(self._context.target.load(self._table, self._codec.pack_keys(keys)))
            yield from zip(self._codec.keys_of(rows), rows, strict=True)

    def _unseen_row(self) -> AlertRow | None:
        """Return the row of an alert without a key that has had no event: it watches since the rule was first run."""
        if self._plan.is_keyed:
            return None
        if self._unseen is None and not self._context.target.load(self._table, [(self._plan.name,)]):
            row = self._unseen = row_class_of(self._plan)(self._plan.name)
            row.begin(self._episodes.written.first_watched_at)
        return self._unseen

    # The first time at the head

    async def _settle(self, checkpoint: Checkpoint) -> None:
        """Make the open episodes of the log those of the rule, and note that it watches from here on."""
        now = self._clock.now()
        self._forget_asked()
        raised: dict[str, AlertRow] = {}
        every = Missing(self._columns["raised_at"], negated=True)
        for key, row in self._found_unordered(every):
            raised[self._text(key)] = row
        due = Compare(self._columns["due"], "<=", now)
        for key, row in self._found(due):
            if not self._passes(key, row, now):
                continue
            raised.pop(self._text(key), None)
            if row.raised_at is not None:
                raised[self._text(key)] = row
        written = self._episodes.written
        # a rule that watches again, after a rollback for example, opens episodes of their own
        salt = f"{self._definition.fingerprint} {self._place.generation} {written.marks.get(self._place.partition, 0)}"
        steps = [
            Step(text, Change("raised", row.raised_at or now, f"{row.opened_by} {salt}", row.reason or ""))
            for text, row in raised.items()
        ]
        last = self._place.partition
        steps += [
            Step(text, Change("cleared", max(now, current.at), "", CHANGED_RULE, episode=current.episode))
            for text, current in self._episodes.written.open.items()
            if text not in raised and self._is_of_partition(text)
        ]
        watching = AlertWatching(
            self._plan.name, self._definition.fingerprint, self._place.generation, last, checkpoint.position, now
        )
        await self._episodes.append(steps, watching)

    def _is_of_partition(self, text: str) -> bool:
        partitions = self._definition.partitions
        key = text if self._plan.size == 1 else key_text_of(text)
        return partitions == 1 or partition_of((key,), partitions) == self._place.partition

    def _found_unordered(self, condition: Condition) -> Iterator[tuple[Key, AlertRow]]:
        rows = self._codec.unpack_all(self._context.target.find(self._table, RowQuery(condition)))
        partitions = self._definition.partitions
        for key, row in zip(self._codec.keys_of(rows), rows, strict=True):
            if partitions == 1 or partition_of(key, partitions) == self._place.partition:
                yield key, row
