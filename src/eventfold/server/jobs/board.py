"""The jobs of a server: begun, running in threads of their own, stopped, and continued after a restart.

A rebuild continues at the checkpoint of the generation that is being built; a verification begins again. A job that
runs when the server ends is not ended in the log, so that the next server continues it. The server that runs a job
holds a lock of the store with its name, which ends with the process: of several servers one runs it, and another one
when that has died.
Knows: stores, the administration of projections. Does not know: HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from eventfold.aio import AsyncStore
from eventfold.core.event import Recorded
from eventfold.core.query import Query
from eventfold.errors import EventfoldError, LeaseHeld
from eventfold.log.lock_holders import whoami
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.verify import Proof
from eventfold.server.access.errors import ServerBusy
from eventfold.server.jobs.facts import BEGUN, ENDED, JOB_EVENTS, JobBegun, JobEnded, JobInLog, Outcome, tag_of
from eventfold.server.places import without_places
from eventfold.server.registered import Registered

MAX_RUNNING = 4  # jobs of a server at a time
MAX_LISTED = 1_000  # events about jobs that are read for a list, newest first
CLAIM_S = 5.0  # between two attempts to continue a job that another server runs
_logger = logging.getLogger("eventfold.server")


class RunningJob:
    """A job that runs in this server: its progress, and whether it is to stop."""

    def __init__(self, begun: JobBegun, facts: Mapping[str, str]) -> None:
        self.begun, self.facts = begun, dict(facts)
        self.done, self.all = 0, begun.head if begun.at is None else begun.at
        self.stopping = threading.Event()
        self.by_caller = False  # whether a caller stops it, or the server that ends
        self.task: asyncio.Task[None] | None = None

    def progress(self, done: int, all: int) -> None:
        """Take note of the progress, from the thread of the job; end a job that cannot be asked whether to stop."""
        self.done, self.all = done, all
        if self.stopping.is_set() and self.begun.kind == "verify":
            raise JobStopped


class JobStopped(Exception):
    """Ends a verification that is to stop."""


class Jobs:
    """The jobs of a server's stores."""

    def __init__(self, stores: Mapping[str, AsyncStore], registered: Registered, *, read_only: bool) -> None:
        self._stores, self._registered, self._read_only = stores, registered, read_only
        self._running: dict[tuple[str, str], RunningJob] = {}
        self._waiting = set[asyncio.Task[None]]()  # to continue jobs that other servers run
        self._threads: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Continue the jobs of every store that have not ended, and that this server can run."""
        if self._read_only:
            return
        for name, store in self._stores.items():
            try:
                waiting = [each async for each in self.in_log(store) if each.ended is None]
            except EventfoldError as error:  # the store is not reachable: its jobs wait for the next start
                _logger.warning("The jobs of a store cannot be read, and are not continued: %s", error.code)
                continue
            for job in reversed(waiting):
                begun = job.begun.event
                if self._can_run(begun) and not await self._continue(
                    name, RunningJob(begun, facts_of_event(job.begun))
                ):
                    task = asyncio.get_running_loop().create_task(self._continue_later(name, job.begun))
                    self._waiting.add(task)
                    task.add_done_callback(self._waiting.discard)

    async def _continue(self, store_name: str, job: RunningJob) -> bool:
        """Run a job that has not ended. False if another server runs it, or this one has enough."""
        if len(self._running) >= MAX_RUNNING or await self._claim(store_name, job.begun.job) is not None:
            return False
        ends = Query.of(types=[ENDED], tags=[tag_of(job.begun.job)])
        if await self._stores[store_name].count(ends):
            await self._release(store_name, job.begun.job)
        else:
            self._start(store_name, job)
        return True

    async def _continue_later(self, store_name: str, begun: Recorded[JobBegun]) -> None:
        try:
            while True:
                if await self._continue(store_name, RunningJob(begun.event, facts_of_event(begun))):
                    return
                await asyncio.sleep(CLAIM_S)
        except EventfoldError as error:  # as at the start
            _logger.warning("A job cannot be continued: %s", error.code)

    async def _claim(self, store_name: str, job: str) -> str | None:
        """Acquire the lock of a job, and return None; otherwise return who holds it."""
        locks = self._stores[store_name].engine.services.locks
        return None if locks is None else await locks.try_acquire(tag_of(job), whoami())

    async def _release(self, store_name: str, job: str) -> None:
        locks = self._stores[store_name].engine.services.locks
        if locks is None:
            return
        try:
            await locks.release(tag_of(job))
        except EventfoldError as error:  # it ends with the store
            _logger.warning("The lock of a job cannot be released: %s", error.code)

    async def close(self) -> None:
        """Stop all jobs, without an end in the log, and wait for them."""
        for task in self._waiting:
            task.cancel()
        for job in self._running.values():
            job.stopping.set()
        await asyncio.gather(*(job.task for job in self._running.values() if job.task), return_exceptions=True)
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    async def begin(self, store_name: str, begun: JobBegun, facts: Mapping[str, str]) -> None:
        """Write that a job has begun, and run it. Raises ServerBusy while four others run."""
        if len(self._running) >= MAX_RUNNING:
            raise ServerBusy(
                f"{MAX_RUNNING} jobs are running.", "Wait for one of them to end, or stop one.", retry_after=30
            )
        job = RunningJob(begun, facts)
        self._running[store_name, begun.job] = job  # counts at once
        try:
            await self._claim(store_name, begun.job)  # before others can know of it
            await self._write(store_name, job, BEGUN, job.begun)
        except BaseException:
            await self._release(store_name, begun.job)
            del self._running[store_name, begun.job]
            raise
        self._start(store_name, job)

    def running(self, store_name: str, job: str) -> RunningJob | None:
        """Return a job if it runs here."""
        return self._running.get((store_name, job))

    async def stop(self, store_name: str, job: str, facts: Mapping[str, str]) -> None:
        """Stop a job: one that runs here ends after its current page; one that runs nowhere is ended in the log.

        Raises LeaseHeld if another server runs it.
        """
        running = self.running(store_name, job)
        if running is None:
            holder = await self._claim(store_name, job)
            if holder is not None:
                raise LeaseHeld(
                    f"Another server runs this job: {holder}.", "Send the same request to that server.", holder=holder
                )
            ghost, stopped = RunningJob(JobBegun(job, "verify"), facts), "It was stopped while it did not run."
            try:
                await self._write(store_name, ghost, ENDED, JobEnded(job, "stopped", stopped))
            finally:
                await self._release(store_name, job)
            return
        running.by_caller, running.facts = True, dict(facts)
        running.stopping.set()
        if running.task is not None:
            await asyncio.wait([running.task], timeout=5)

    async def in_log(self, store: AsyncStore) -> AsyncIterator[JobInLog]:
        """Return the jobs of a store, newest first, each with its end if it has ended."""
        ended: dict[str, Recorded[JobEnded]] = {}
        async for recorded in store.read(JOB_EVENTS, backwards=True, limit=MAX_LISTED):
            if isinstance(recorded.event, JobEnded):
                ended.setdefault(recorded.event.job, recorded)
            else:
                yield JobInLog(recorded, ended.get(recorded.event.job))

    def _can_run(self, begun: JobBegun) -> bool:
        return begun.kind == "verify" or begun.projection in self._registered.projections

    def _start(self, store_name: str, job: RunningJob) -> None:
        self._running[store_name, job.begun.job] = job
        job.task = asyncio.get_running_loop().create_task(self._run(store_name, job))

    async def _run(self, store_name: str, job: RunningJob) -> None:
        """Run a job to its end, and write how it ended, unless the server ends."""
        try:
            ended = await self._outcome(store_name, job)
            if ended is not None:
                await self._write(store_name, job, ENDED, ended)
        except EventfoldError as error:
            _logger.warning("The end of a job could not be written, and it is run again later: %s", error.code)
        finally:
            await self._release(store_name, job.begun.job)
            self._running.pop((store_name, job.begun.job), None)

    async def _outcome(self, store_name: str, job: RunningJob) -> JobEnded | None:
        """How a job ended; None if it is to be continued by another server."""
        name, stopped = job.begun.job, "It was stopped."
        if self._threads is None:
            self._threads = ThreadPoolExecutor(MAX_RUNNING, "eventfold-job")
        try:
            facts: dict[str, Any] = dict(job.facts)
            admin = await self._stores[store_name].using(**facts).projections.ask(lambda admin: admin)
            proved, verdict = await asyncio.get_running_loop().run_in_executor(self._threads, self._work, admin, job)
        except LeaseHeld as error:
            return None if job.stopping.is_set() else _failed(name, error)
        except EventfoldError as error:
            return None if job.stopping.is_set() and not job.by_caller else _failed(name, error)
        except JobStopped:
            return JobEnded(name, "stopped", stopped) if job.by_caller else None
        except Exception as error:
            _logger.error("A job failed.", exc_info=error)
            return JobEnded(name, "failed", "The server failed to carry it out; its log has the cause.")
        if job.stopping.is_set():
            return JobEnded(name, "stopped", stopped) if job.by_caller else None
        return JobEnded(name, "done", verdict, proved)

    def _work(self, admin: ProjectionAdmin, job: RunningJob) -> tuple[bool | None, str]:
        return self._rebuild(admin, job) if job.begun.kind == "rebuild" else self._verify(admin, job)

    def _rebuild(self, admin: ProjectionAdmin, job: RunningJob) -> tuple[None, str]:
        begun = job.begun
        projection: Any = self._registered.projections[begun.projection]
        generation = admin.rebuild(projection, at=begun.at, progress=job.progress, stop=job.stopping.is_set)
        if job.stopping.is_set() or not begun.switch or begun.at is not None:
            return None, f"Generation {generation} was built."
        admin.switch(projection)
        return None, f"Generation {generation} was built and is live."

    def _verify(self, admin: ProjectionAdmin, job: RunningJob) -> tuple[bool, str]:
        named: tuple[Any, ...] = ()
        if job.begun.projection:
            named = (self._registered.projections.get(job.begun.projection, job.begun.projection),)
        proofs: list[Any] = [] if named else [admin.verify_log(job.progress)]
        proofs += admin.verify(*named, progress=job.progress)
        if job.begun.rows:
            proofs += admin.verify_rows(*named, progress=job.progress)
        admin.record(*proofs)
        wrong = [each for each in proofs if _is_wrong(each)]
        if not wrong:
            return True, f"Everything is proved: {len(proofs)} checks."
        return False, f"{len(wrong)} of {len(proofs)} checks are not proved; see the events $verified."

    async def _write(self, store_name: str, job: RunningJob, type: str, event: JobBegun | JobEnded) -> None:
        facts: dict[str, Any] = dict(job.facts)
        using = self._stores[store_name].using(**facts)
        await using.projections.append_fact(type, tag_of(event.job), event)


def _failed(job: str, error: EventfoldError) -> JobEnded:
    outcome, shown = cast("Outcome", "failed"), without_places(error)
    return JobEnded(job, outcome, f"{shown.what} {shown.remedy}"[:2_000])


def _is_wrong(proof: Any) -> bool:
    return proof.failed if isinstance(proof, Proof) else not proof.proved


def facts_of_event(recorded: Recorded[JobBegun]) -> dict[str, str]:
    """The actor and the reason of an event."""
    return {name: value for name in ("actor", "reason") if isinstance(value := recorded.metadata.get(name), str)}
