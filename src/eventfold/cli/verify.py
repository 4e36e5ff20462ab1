"""`eventfold verify`: checks that the log is unchanged, and that no follower skipped or repeated an event.

Knows: tables, a progress bar, exit codes. Does not know: how a proof is made.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from eventfold.cli.formatting import escape_control
from eventfold.cli.options import Json, Url, Wide, open_store, split_store_argument
from eventfold.cli.output import Column, Output, progress_bar
from eventfold.cli.run import import_projections
from eventfold.cli.state import ImportPath
from eventfold.core.counted import count_of
from eventfold.projections.comparison import RowProof
from eventfold.projections.verify import LogProof, Proof

MAX_FLAWS_SHOWN = 20  # flaws of a log that are shown


def verify(
    url: Url = None,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME…", help="Names, or MODULE:CLASS. Default: all, and the log.", show_default=False),
    ] = None,
    log: Annotated[
        bool | None,
        typer.Option("--log/--no-log", help="Check the log itself as well, or do not.", show_default=False),
    ] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Fold read models again into temporary rows, and compare every row.")
    ] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the results in the log, as events of the type $verified.")
    ] = False,
    import_path: ImportPath = ".",
    as_json: Json = None,
    wide: Wide = False,
) -> None:
    """Prove that the log is unchanged, and that read models and followers processed every event exactly once.

    The engine compares the data that it stores twice. Then the log is counted again and compared with the ledger of
    every checkpoint. This proves that each event was processed once, not the content of rows: --rows proves that, and
    needs space for a second copy of the rows while it runs. Exits 1 if something is not proved, and names the first
    difference.
    """
    output = Output(as_json, wide)
    store_url, others = split_store_argument(url, names or [])
    with open_store(store_url) as store:
        named = import_projections(others, import_path)
        found = None
        if log or (log is None and not named):
            with progress_bar(output, "checking") as bar:
                found = store.projections.verify_log(bar)
            print_log_proof(output, found)
        with progress_bar(output, "counting") as bar:
            proofs = store.projections.verify(*named, progress=bar)
        compared: list[RowProof] = []
        if rows:
            with progress_bar(output, "folding again") as bar:
                compared = store.projections.verify_rows(*named, progress=bar)
        if record:
            store.projections.record(*([] if found is None else [found]), *proofs, *compared)
    if output.is_json:
        output.write_lines(msgspec.json.encode(each) for each in (*proofs, *compared))
    elif proofs:
        print_proofs(output, proofs)
    elif found is None:
        output.print("This store has no read model, no subscription and no named follower.")
    if compared and not output.is_json:
        print_row_proofs(output, compared)
    wrong = [*(each for each in proofs if each.failed), *(each for each in compared if not each.proved)]
    if wrong or (found is not None and not found.proved):
        raise typer.Exit(1)


def print_log_proof(output: Output, found: LogProof) -> None:
    """Print the result of the engine's check."""
    if output.is_json:
        output.write_value({"log": found.engine, "proved": found.proved, **msgspec.structs.asdict(found)})
        return
    if not found.checked:
        size = count_of(found.events, "event")
        output.print(f"{found.engine} cannot check its log of {size} by itself; they are counted below.")
        return
    if found.proved:
        output.print(f"The log is unchanged: {count_of(found.events, 'event')}, compared with every index.")
        return
    output.print(f"The log is damaged: {count_of(len(found.flaws), 'flaw')}.", style="bold red")
    for flaw in found.flaws[:MAX_FLAWS_SHOWN]:
        where = "" if flaw.position is None else f"event {flaw.position:,}: "
        output.print(f"  {where}{escape_control(flaw.what)}")
    if len(found.flaws) > MAX_FLAWS_SHOWN:
        output.print_hint(f"  … and {len(found.flaws) - MAX_FLAWS_SHOWN:,} more (--json shows all)")


def describe_proof(proof: Proof) -> str:
    """A proof in a few words."""
    apart = [f"{n:,} {what}" for n, what in ((proof.parked, "parked"), (proof.skipped, "skipped")) if n]
    return f"{count_of(proof.counted, 'event')}, each exactly once" + (f"; {', '.join(apart)}" if apart else "")


def print_proofs(output: Output, proofs: list[Proof]) -> None:
    """Print a line for each checkpoint, and below it the full verdict of those that are not proved."""
    columns = [Column(" "), Column("name", style="bold", elastic=True, min_width=12)]
    rows = [["✓" if p.proved else "✗" if p.failed else "–", p.name] for p in proofs]
    for title, values in (("gen", [p.generation for p in proofs]), ("part", [p.partition for p in proofs])):
        if len(set(values)) > 1:  # a number that is the same everywhere is left out
            columns.append(Column(title, True))
            rows = [[*row, str(value)] for row, value in zip(rows, values, strict=True)]
    columns += [Column("position", True), Column("verdict", elastic=True, min_width=24)]
    verdicts = [describe_proof(each) if each.proved else escape_control(each.verdict) for each in proofs]
    rows = [[*row, f"{p.position:,}", said] for row, p, said in zip(rows, proofs, verdicts, strict=True)]
    output.print_table(columns, rows)
    for each in proofs:
        if not each.proved:
            output.print(f"{each.name}: {escape_control(each.verdict)}")


def print_row_proofs(output: Output, compared: list[RowProof]) -> None:
    """Print a line for each read model, and below it the rows that differ, as far as they were collected."""
    columns = (Column(" "), Column("rows of", style="bold", elastic=True, min_width=12), Column("position", True))
    columns += (Column("verdict", elastic=True, min_width=24),)
    marks = ["✓" if each.proved else "✗" for each in compared]
    rows = [(m, p.name, f"{p.position:,}", escape_control(p.verdict)) for m, p in zip(marks, compared, strict=True)]
    output.print_table(columns, rows)
    for proof in compared:
        for each in proof.differences:
            key = ", ".join(map(str, each.key))
            output.print(
                escape_control(
                    f"{proof.name}, row {key}: {_format_row(each.before)}; the log folds to {_format_row(each.after)}"
                )
            )


def _format_row(row: tuple[Any, ...] | None) -> str:
    return "no row" if row is None else ", ".join(map(str, row))
