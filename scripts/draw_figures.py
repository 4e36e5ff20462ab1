"""Draws the figures of the documents, docs/figures/*.svg: `python scripts/draw_figures.py`.

A test compares the files with what this script draws. Every figure has a title and a description for readers who do not
see it, and a light ground of its own, so that it can be read on a dark page too.
Knows: SVG. Does not know: where a figure is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
FONT = "Inter, Segoe UI, Helvetica Neue, Liberation Sans, Arial, sans-serif"
INK, GREY, LINE, NAVY, WARM, WARM_LINE = "#14273f", "#55677f", "#b9c4d3", "#1f3a5f", "#fdf1e6", "#e0a978"


class Figure(NamedTuple):
    """A figure: its file's name, size in CSS pixels, title, description, and parts in the order of drawing."""

    name: str
    width: int
    height: int
    title: str
    description: str
    parts: list[str]

    def svg(self) -> str:
        """The file's text."""
        return "\n".join(
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
                f'aria-labelledby="t d" font-family="{FONT}" fill="{INK}">',
                f'<title id="t">{escape(self.title)}</title>',
                f'<desc id="d">{escape(self.description)}</desc>',
                '<defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
                f'orient="auto-start-reverse"><path d="M0 1l9 4-9 4z" fill="{GREY}"/></marker></defs>',
                f'<rect width="{self.width}" height="{self.height}" rx="10" fill="#f6f8fb"/>',
                *self.parts,
                "</svg>\n",
            )
        )


def box(x: int, y: int, width: int, height: int, title: str, *lines: str, fill: str = "#fff", line: str = LINE) -> str:
    """A rectangle with a bold title and smaller lines below it, all centred."""
    middle, top = x + width / 2, y + height / 2 - 9 * len(lines) + 5
    shown = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{fill}" stroke="{line}"/>']
    white = fill == NAVY
    shown.append(text(middle, top, title, size=14, bold=True, fill="#fff" if white else INK))
    shown += [
        text(middle, top + 18 * number, each, fill="#d5deea" if white else GREY)
        for number, each in enumerate(lines, start=1)
    ]
    return "".join(shown)


def text(
    x: float, y: float, what: str, *, size: int = 12, bold: bool = False, fill: str = GREY, anchor: str = "middle"
) -> str:
    """One line of text."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}>'
        f"{escape(what)}</text>"
    )


def heading(x: float, y: float, what: str, *, size: int = 14, anchor: str = "middle") -> str:
    """One line of bold text."""
    return text(x, y, what, size=size, bold=True, fill=INK, anchor=anchor)


def arrow(path: str, *, dashed: bool = False) -> str:
    """A line with an arrowhead at its end, by the commands of SVG."""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{GREY}" stroke-width="1.6" marker-end="url(#a)"{dashes}/>'


def log(x: int, y: int, events: list[tuple[str, str]], *, new: int = -1, title: str = "", width: int = 76) -> str:
    """A log: numbered events side by side on a dark ground. `new`: the index of the event that is drawn as new."""
    gap, top = width + 8, y + (34 if title else 14)
    shown = [
        f'<rect x="{x}" y="{y}" width="{gap * len(events) + 24}" height="{top - y + 68}" rx="8" fill="{NAVY}"/>',
        text(x + 16, y + 21, title, size=14, bold=True, fill="#fff", anchor="start") if title else "",
    ]
    for number, (name, detail) in enumerate(events):
        left = x + 16 + gap * number
        fill = WARM if number == new else "#fff"
        shown += (
            f'<rect x="{left}" y="{top}" width="{width}" height="54" rx="5" fill="{fill}"/>',
            text(left + width / 2, top + 16, str(number + 1)),
            text(left + width / 2, top + 33, name, fill=INK),
            text(left + width / 2, top + 47, detail, size=10, fill=INK),
        )
    return "".join(shown)


def table(x: int, y: int, widths: list[int], rows: list[list[str]]) -> str:
    """A table of text; the first row is its head."""
    shown: list[str] = []
    for row_number, row in enumerate(rows):
        left = x
        for width, cell in zip(widths, row, strict=True):
            fill = "#e6ecf4" if row_number == 0 else "#fff"
            shown.append(
                f'<rect x="{left}" y="{y + 26 * row_number}" width="{width}" height="26" fill="{fill}" '
                f'stroke="{LINE}"/>'
            )
            shown.append(text(left + 8, y + 26 * row_number + 17, cell, bold=row_number == 0, fill=INK, anchor="start"))
            left += width
    return "".join(shown)


ACCOUNT = [
    ("Opened", "a-1"),
    ("Deposited", "a-1 80"),
    ("Opened", "a-2"),
    ("Withdrawn", "a-1 50"),
    ("Deposited", "a-2 50"),
]


def figures() -> Iterator[Figure]:
    """Every figure."""
    yield Figure(
        "log",
        880,
        320,
        "One log, and what is folded from it",
        "Commands are decided over states and append events to one ordered log. A state, a read model and another "
        "system are all folded from it.",
        [
            box(30, 62, 120, 60, "Command", "transfer 50"),
            arrow("M150 92h58"),
            box(212, 62, 140, 60, "Decision", "a function of states", fill=WARM, line=WARM_LINE),
            arrow("M352 92h44"),
            log(400, 42, ACCOUNT, new=4, title="The log: events in order, never changed"),
            arrow("M520 146v48"),
            arrow("M656 146v48"),
            arrow("M793 146v48"),
            box(465, 198, 110, 64, "State", "now, or then"),
            box(588, 198, 136, 64, "Read model", "a table for a question"),
            box(737, 198, 113, 64, "Follower", "another system"),
            arrow("M440 146v44q0 58-60 58H282V126", dashed=True),
            text(360, 240, "folds"),
            text(
                440,
                300,
                "All state is a fold over one ordered log: of a decision, of a table, of any past moment.",
                size=13,
            ),
        ],
    )
    yield Figure(
        "crud",
        880,
        270,
        "The same week in a table and in a log",
        "A table keeps the last value of each column. A log keeps each change, so the table can be made from it, and "
        "not "
        "the other way round.",
        [
            heading(40, 36, "A table, on Friday", size=14, anchor="start"),
            table(40, 52, [70, 120, 90], [["order", "status", "total"], ["o-1", "cancelled", "0.00"]]),
            text(40, 134, "Three UPDATEs, each of which", anchor="start"),
            text(40, 152, "erased what was there before.", anchor="start"),
            log(
                360,
                24,
                [
                    ("Placed", "o-1 49.90"),
                    ("Discounted", "o-1 5.00"),
                    ("Paid", "o-1 44.90"),
                    ("Cancelled", "o-1 late"),
                    ("Refunded", "o-1 44.90"),
                ],
                title="A log, on Friday",
                width=84,
            ),
            arrow("M600 128v44H280V108", dashed=True),
            text(430, 165, "folded"),
            text(440, 214, "The table can be made from the log, as of any moment.", size=13),
            text(
                440,
                236,
                "The log cannot be made from the table: that the order was paid, and why it was cancelled, is gone.",
                size=13,
            ),
        ],
    )
    yield Figure(
        "cqrs",
        880,
        300,
        "The write model and the read models",
        "Commands go through decisions to the log. Projections follow the log and write rows into stores that suit "
        "each "
        "question. Queries read those rows.",
        [
            box(24, 40, 142, 60, "Command", "what a user wants"),
            arrow("M166 70h40"),
            box(210, 40, 150, 60, "Write model", "states and decisions", fill=WARM, line=WARM_LINE),
            arrow("M360 70h46"),
            box(410, 34, 150, 72, "The log", "the source of truth", fill=NAVY, line=NAVY),
            arrow("M485 106v34"),
            box(400, 144, 170, 54, "Projections", "follow the log"),
            arrow("M570 160h56l40-64", dashed=False),
            arrow("M570 171h92", dashed=False),
            arrow("M570 182h56l40 64", dashed=False),
            box(668, 56, 182, 50, "SQL rows", "lists, filters, totals"),
            box(668, 146, 182, 50, "Redis", "one row, very often"),
            box(668, 236, 182, 50, "DuckDB, Parquet", "reports over years"),
            box(24, 196, 142, 60, "Query", "what a user asks"),
            arrow("M166 226h440l58 20", dashed=True),
            text(330, 216, "reads rows, and never touches the write side"),
        ],
    )
    yield Figure(
        "integration",
        880,
        250,
        "Events inside and events published",
        "Events inside a service are its own. A process translates some of them into published events, a contract with "
        "other services.",
        [
            f'<rect x="24" y="26" width="470" height="196" rx="10" fill="none" stroke="{LINE}" stroke-dasharray="6 '
            f'5"/>',
            heading(44, 50, "Ordering: one bounded context", size=13, anchor="start"),
            box(44, 76, 190, 110, "Events inside", "ItemAdded", "DiscountApplied", "OrderPaid"),
            arrow("M234 131h52"),
            box(290, 90, 180, 82, "Effect", "translates, at least once,", "the id as key", fill=WARM, line=WARM_LINE),
            arrow("M470 131h76"),
            box(550, 90, 150, 82, "Published event", "order.paid, version 2", "a contract"),
            arrow("M700 118l58-40"),
            arrow("M700 144l58 40"),
            box(762, 46, 92, 56, "Shipping"),
            box(762, 164, 92, 56, "Invoices"),
        ],
    )
    yield Figure(
        "reading",
        880,
        236,
        "From an append to each kind of reader",
        "Along one line of time: the append is durable, then acknowledged; states and inline read models are current "
        "at "
        "once; a followed read model some milliseconds later.",
        [
            arrow("M30 110h820"),
            text(842, 98, "time"),
            *(f'<circle cx="{x}" cy="110" r="6" fill="{NAVY}"/>' for x in (110, 300, 560, 770)),
            heading(110, 82, "append called", size=13),
            heading(300, 82, "durable, acknowledged", size=13),
            heading(560, 82, "read model", size=13),
            heading(770, 82, "other systems", size=13),
            text(300, 138, "state(…), decide(…), read(…)"),
            text(300, 156, "inline read models"),
            text(560, 138, "rows(…): some milliseconds"),
            text(560, 156, "rows(…, wait=receipt.last): now"),
            text(770, 138, "webhooks, sinks"),
            text(770, 156, "as fast as they are"),
            text(
                440,
                206,
                "Everything left of the second point is decided under a condition: a stale screen can never break a "
                "rule.",
                size=13,
            ),
        ],
    )
    yield Figure(
        "strategies",
        880,
        280,
        "Three strategies for two people who want the same",
        "Optimistic: both decide, one is refused and decides again. Pessimistic: one waits for a lock. Transaction: "
        "one "
        "change of rows and events commits together.",
        [
            heading(150, 40, "Optimistic: decide", size=14),
            heading(440, 40, "Pessimistic: store.lock", size=14),
            heading(735, 40, "Transaction: in_transaction", size=14),
            box(30, 60, 110, 48, "Ann", "reads at 7"),
            box(160, 60, 110, 48, "Ben", "reads at 7"),
            arrow("M85 108v40"),
            arrow("M215 108v40"),
            box(30, 152, 110, 48, "appends 8"),
            box(160, 152, 110, 48, "refused", fill=WARM, line=WARM_LINE),
            arrow("M215 200v26"),
            text(215, 244, "reads at 8, decides again"),
            box(330, 60, 100, 48, "Ann", "holds it"),
            box(450, 60, 100, 48, "Ben", "waits", fill=WARM, line=WARM_LINE),
            arrow("M380 108v40"),
            box(330, 152, 100, 48, "appends 8"),
            arrow("M430 176h66v-64", dashed=True),
            text(500, 190, "released", anchor="start"),
            box(630, 60, 210, 140, "BEGIN", "UPDATE your rows", "store.append(…)", "COMMIT: both, or neither"),
        ],
    )
    yield Figure(
        "contexts",
        880,
        250,
        "Bounded contexts, each with a log of its own",
        "Sales, Stock and Support each have their own language and their own log. What they tell each other are "
        "published "
        "events.",
        [
            *(
                f'<rect x="{x}" y="30" width="236" height="150" rx="10" fill="none" stroke="{LINE}" '
                f'stroke-dasharray="6 5"/>'
                for x in (24, 322, 620)
            ),
            heading(142, 56, "Sales", size=15),
            heading(440, 56, "Stock", size=15),
            heading(738, 56, "Support", size=15),
            text(142, 82, "Product: a price and a title"),
            text(440, 82, "Product: a place on a shelf"),
            text(738, 82, "Product: what breaks"),
            box(54, 104, 176, 50, "its log", "OrderPlaced", fill=NAVY, line=NAVY),
            box(352, 104, 176, 50, "its log", "UnitReserved", fill=NAVY, line=NAVY),
            box(650, 104, 176, 50, "its log", "TicketOpened", fill=NAVY, line=NAVY),
            arrow("M230 129h118"),
            arrow("M528 129h118"),
            text(
                440,
                216,
                "One word has one meaning inside a context. What crosses its border is a published event, made for "
                "the other side.",
                size=13,
            ),
        ],
    )
    yield Figure(
        "hexagonal",
        880,
        360,
        "Ports and adapters of an application, and of eventfold",
        "Driving adapters call the application: web handlers, commands of a shell, timers. The application calls "
        "ports; "
        "driven adapters implement them: engines, targets, sinks.",
        [
            heading(140, 40, "Driving adapters", size=14),
            heading(740, 40, "Driven adapters", size=14),
            *(
                box(40, y, 200, 52, title, line)
                for y, title, line in (
                    (62, "Web handlers", "FastAPI, Django, eventfold serve"),
                    (138, "Shell", "eventfold, your own commands"),
                    (214, "Runners", "timers, processes, followers"),
                )
            ),
            *(arrow(f"M240 {y}l72 {180 - y}") for y in (88, 164, 240)),
            f'<path d="M440 62l128 64v110l-128 64-128-64v-110z" fill="{WARM}" stroke="{WARM_LINE}"/>',
            heading(440, 150, "Your domain", size=15),
            text(440, 174, "events, states,"),
            text(440, 192, "decisions: plain functions"),
            text(440, 222, "no I/O, no clock"),
            *(arrow(f"M568 180l68 {y - 180}") for y in (88, 164, 240)),
            *(
                box(640, y, 200, 52, title, line)
                for y, title, line in (
                    (62, "Engines", "SQLite, PostgreSQL, NATS, HTTP"),
                    (138, "Targets", "rows in SQL, DuckDB, …"),
                    (214, "Sinks and effects", "Redis, webhooks, mail"),
                )
            ),
            text(440, 332, "Arrows point from who calls to who is called; the domain imports neither side.", size=13),
        ],
    )


if __name__ == "__main__":
    for figure in figures():
        (FOLDER / f"{figure.name}.svg").write_text(figure.svg(), "utf-8")
        print(FOLDER / f"{figure.name}.svg")
