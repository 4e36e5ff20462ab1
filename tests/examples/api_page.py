"""Docs/reference/api.md, made from the classes themselves, so that it cannot say what is not so.

    python -m tests.examples.api_page

writes the page; a test compares it. What a name is for is the first sentence of its docstring. Knows: which section a
name belongs to, below. Does not know: any of the names' meaning.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import msgspec

import eventfold as ef
import eventfold.testing as kit
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "reference" / "api.md"

OPENING = """\
# The Python API

Every public name, with one line. This page is made from the docstrings, which say more: try `help(ef.Store.append)`, or
hover over a name in your editor. Anything else may change without notice. What an engine promises is written in
`src/eventfold/ports/engine.py`; [errors](errors.md) and [limits](limits.md) have pages of their own.

`import eventfold as ef` is meant throughout. Parameters behind `*` are given by name.
"""


VARIABLES = {"St": "Store", "S": "State", "P": "Projection", "F": "function", "C": "class"}


def returned(function: Any) -> str:
    """What a function returns, as its annotation says, without what only a type checker needs."""
    given = inspect.signature(function).return_annotation
    text = given if isinstance(given, str) else getattr(given, "__name__", str(given))
    if text in ("None", "_empty") or text.startswith(("AbstractContextManager", "Generator", "AsyncGenerator")):
        return ""
    text = re.sub(r"\[Any\]|\bbuiltins\.|\beventfold\.[\w.]*\.", "", text)
    return re.sub(r"\b(?:St|S|P|F|C)\b", lambda variable: VARIABLES[variable[0]], text)


def parameters(function: Any, *, bound: bool) -> str:
    """The parameters, with their defaults, without their types."""
    signature = inspect.signature(function)
    given = list(signature.parameters.values())[1 if bound else 0 :]
    plain = [
        each.replace(annotation=each.empty, default=each.default if each.default is each.empty else Shown(each.default))
        for each in given
    ]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


class Shown:
    """A default as one would write it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        if isinstance(self.value, ef.Query):
            return "Query()"
        if callable(self.value):
            return "…"
        return f"{self.value:_}" if type(self.value) is int and self.value > 9_999 else repr(self.value)


def sentence(thing: Any) -> str:
    """The first sentence of a docstring, on one line."""
    text = inspect.getdoc(thing) or ""
    paragraph = " ".join(text.split("\n\n")[0].split()).replace("``", "`")
    found = re.match(r".+?\.(?=\s|$)", paragraph)
    return found[0] if found else paragraph


def row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def code(name: str, value: str = "") -> str:
    """A name as code, with what it gives."""
    return f"`{name}`" + (f" → `{value}`" if value else "")


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class, its own and those of its bases in this package, in their order."""
    seen: set[str] = set()
    for owner in cls.__mro__:
        if not owner.__module__.startswith("eventfold"):
            continue
        for name, member in vars(owner).items():
            kept = isinstance(member, FunctionType | property | classmethod | staticmethod)
            port = (getattr(member, "__doc__", None) or "").startswith("See the port")
            if kept and not port and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, getattr(cls, name) if isinstance(member, classmethod | staticmethod) else member


def one_member(name: str, member: Any, cls: type) -> str:
    """A property, or a method with its parameters, and what it gives."""
    if isinstance(member, property):
        return code(f".{name}", returned(member.fget))
    bound = isinstance(member, FunctionType) and not isinstance(inspect.getattr_static(cls, name), staticmethod)
    return code(f".{name}{parameters(member, bound=bound)}", returned(member))


def member_rows(cls: type) -> list[str]:
    """A row for each member of a class."""
    return [row(one_member(name, member, cls), sentence(member)) for name, member in members(cls)]


def fields(cls: type) -> list[str]:
    """The fields of a struct, with their defaults; a user's own classes have theirs."""
    if not issubclass(cls, msgspec.Struct) or cls in (
        ef.Event,
        ef.State,
        ef.Aggregate,
        ef.Projection,
        ef.Process,
        ef.Alert,
    ):
        return []
    names = ", ".join(f"`{field}`" for field in cls.__struct_fields__)
    return ["", f"Fields: {names}."] if names else []


def documented(cls: type) -> str:
    """The whole docstring of a class as paragraphs; what is indented in it as code."""
    text = re.split(r"\n>>>", inspect.getdoc(cls) or "")[0].rstrip().replace("``", "`")
    return re.sub(r"(?m)^(`\w+`(?:, `\w+`)*)\s{2,}", r"- \1: ", text)


def one_class(cls: type, name: str) -> list[str]:
    """A section about a class: what it is, its fields, its members."""
    rows = member_rows(cls)
    table = ["", "| | |", "|---|---|", *rows] if rows else []
    return ["", f"### {name}", "", documented(cls), *fields(cls), *table]


def function_table(*functions: Any) -> list[str]:
    """A table of functions."""
    return [
        "",
        "| | |",
        "|---|---|",
        *[row(code(f"{f.__name__}{parameters(f, bound=False)}", returned(f)), sentence(f)) for f in functions],
    ]


def twin(name: str) -> str:
    """How the method of AsyncStore is called: awaited, iterated over, entered, or plainly."""
    member = inspect.getattr_static(ef.AsyncStore, name)
    if isinstance(member, property):
        return "plain"
    inner = getattr(member, "__wrapped__", member)
    if inner is not member and inspect.isasyncgenfunction(inner):
        return "`async with`"
    if inspect.isasyncgenfunction(member):
        return "`async for`"
    if inspect.iscoroutinefunction(member):
        return "`await`"
    return "plain, then `async with`" if hasattr(follower_of(member), "__aenter__") else "plain"


def follower_of(member: Any) -> Any:
    """The class that a plain method of AsyncStore returns, if the module of the store imports it."""
    return vars(inspect.getmodule(member) or object()).get(returned(member), object)


def public_function(thing: Any, module: Any) -> bool:
    """Whether this is a function that a module exports."""
    return isinstance(thing, FunctionType) and thing.__name__ in module.__all__


def stores() -> list[str]:
    """The section about the two stores."""
    rows = [row(one_member(name, member, ef.Store), sentence(member), twin(name)) for name, member in members(ef.Store)]
    opened = f"`ef.Store{parameters(ef.Store.__init__, bound=True)}`"
    return [
        "",
        "## The stores",
        "",
        f"{opened}, `with`; `ef.AsyncStore` with the same arguments, `async with`, or `await store.open()`.",
        "",
        documented(ef.Store),
        "",
        "| `Store` | | `AsyncStore` |",
        "|---|---|---|",
        *rows,
    ]


def page() -> str:
    """The whole page."""
    from eventfold import processes
    from eventfold.aio import AsyncFollower
    from eventfold.core.envelope import Receipt
    from eventfold.core.event import Metadata, RawEvent
    from eventfold.core.query import Cursor
    from eventfold.core.state import Change, Step
    from eventfold.log.copy import Copied
    from eventfold.ports.messages import TagCount, TypeCount
    from eventfold.ports.sink import Batch, Sink, SinkState
    from eventfold.processes.runner import ProcessRunner
    from eventfold.projections.admin import ProjectionAdmin
    from eventfold.projections.rows_async import AsyncSelection
    from eventfold.projections.view import View
    from eventfold.search.find import Budget
    from eventfold.search.plan import Plan
    from eventfold.searches import AsyncSearch, FoundPage, Search
    from eventfold.selection import Rows, Selection
    from eventfold.selection.column import ComparableColumn
    from eventfold.selection.filters import Filter
    from eventfold.selection.source import Explanation
    from eventfold.store import Follower
    from eventfold.targets.sinks.http import HttpSink
    from eventfold.targets.sinks.redis import RedisSink
    from eventfold.testing import scenario
    from eventfold.transactions import Joining

    given = [
        *stores(),
        "\n## Facts",
        *one_class(ef.Event, "Event"),
        *function_table(ef.event, ef.tag, ef.upcast),
        "\n`ef.Tag` is the type of a tag field that holds a string; `ef.Tag[UUID]`, `ef.Tag[int]` are others, and",
        "`ef.Tag[tuple[str, ...]]` makes several tags. `ef.UnknownFields` is the type of a field that keeps what a",
        "stored event has besides the fields its class knows, `more: ef.UnknownFields = {}`: JSON values, written",
        "again with it.",
        *one_class(ef.Draft, "Draft"),
        *one_class(ef.NewEvent, "NewEvent"),
        "\n## States and decisions",
        *one_class(ef.State, "State"),
        *one_class(ef.Aggregate, "Aggregate"),
        *function_table(ef.diff),
        *one_class(ef.Decided, "Decided"),
        *one_class(Step, "Step"),
        *one_class(Change, "Change"),
        "\n## Queries",
        *one_class(ef.Query, "Query"),
        "\n## What comes out of the log",
        *one_class(ef.Recorded, "Recorded"),
        *one_class(Metadata, "Metadata"),
        *one_class(RawEvent, "RawEvent"),
        *one_class(Follower, "Follower"),
        f"\n`AsyncFollower`: {sentence(AsyncFollower)}",
        *one_class(Cursor, "Cursor"),
        *one_class(Receipt, "Receipt"),
        *one_class(Search, "Search"),
        f"\n`AsyncSearch`: {sentence(AsyncSearch)}",
        *one_class(FoundPage, "FoundPage"),
        *one_class(Plan, "Plan"),
        *one_class(Budget, "Budget"),
        *one_class(TypeCount, "TypeCount"),
        *one_class(TagCount, "TagCount"),
        *one_class(Copied, "Copied"),
        "\n## Read models and processes",
        *one_class(ef.Projection, "Projection"),
        *one_class(ef.SqlProjection, "SqlProjection"),
        *one_class(ef.Subscription, "Subscription"),
        *one_class(ef.Transaction, "Transaction"),
        "\n#### Sinks: `eventfold.ports.sink`, `eventfold.targets.sinks`",
        *one_class(Sink, "Sink"),
        *one_class(Batch, "Batch"),
        *one_class(SinkState, "SinkState"),
        *one_class(RedisSink, "RedisSink"),
        *one_class(HttpSink, "HttpSink"),
        *one_class(ProcessRunner, "Running"),
        *one_class(ProjectionAdmin, "ProjectionAdmin"),
        *one_class(View, "View"),
        *one_class(ef.Process, "Process"),
        *function_table(*[each for each in vars(processes).values() if public_function(each, processes)]),
        "\n## Alerts",
        *one_class(ef.Alert, "Alert"),
        "\n#### Statistics of alerts",
        *function_table(ef.rate, ef.absence, ef.seasonal, ef.outlier, ef.drift),
        *function_table(ef.seconds, ef.minutes, ef.hours, ef.days, ef.office_hours),
        *one_class(ef.Rate, "Rate"),
        *one_class(ef.Absence, "Absence"),
        *one_class(ef.Seasonal, "Seasonal"),
        *one_class(ef.Outlier, "Outlier"),
        *one_class(ef.Drift, "Drift"),
        *one_class(ef.Detector, "Detector"),
        *one_class(ef.Calendar, "Calendar"),
        "\n## Rows that are asked for",
        *function_table(ef.col),
        *one_class(ComparableColumn, "What `ef.col` returns"),
        *one_class(Filter, "Filter"),
        *one_class(Rows, "Rows"),
        *one_class(Selection, "Selection"),
        f"\n`AsyncSelection`: {sentence(AsyncSelection)}",
        *one_class(Explanation, "Explanation"),
        "\n## Your own transaction, on PostgreSQL",
        *one_class(Joining, "Joining"),
        "\n## Errors",
        "\n`EventfoldError`, `InvalidInput`, `AppendConflict`, `AppendUnconfirmed`, `InvalidDecision`, `NotSupported`, "
        "and those in `eventfold.errors`: [errors](errors.md).",
        "\n## Testing: `eventfold.testing`",
        *function_table(kit.given),
        *one_class(scenario.Scenario, "Scenario"),
        *one_class(scenario.DecisionResult, "Outcome"),
        *one_class(scenario.FoundState, "Answer"),
        *one_class(kit.Clock, "Clock"),
        *one_class(kit.Faulty, "Faulty"),
        *one_class(kit.LoopRunner, "LoopRunner"),
        *one_class(kit.Synchronous, "Synchronous"),
        "\nStrategies, properties and the suite for engines: [test your rules](../how-to/test-your-rules.md).",
    ]
    return OPENING + "\n".join(given) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"{PAGE} is written")
