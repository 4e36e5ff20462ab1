"""The same source as a table of DuckDB: every line once, for figures that are asked a second time.

Knows: SQL, the file. Does not know: events, the reader in `source.py`, whose way is another one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventfold.demo.data import unpack
from eventfold.demo.fields import connect_file
from eventfold.demo.shop.source import GAP, SHEET_ROWS, SOURCE

if TYPE_CHECKING:
    import duckdb

_LINES = """
CREATE TABLE line AS
WITH numbered AS (
    SELECT row_number() OVER () AS n, Invoice AS invoice, StockCode AS code, trim(coalesce(Description, '')) AS words,
           Quantity::INTEGER AS quantity, strptime(InvoiceDate, '%m/%d/%Y %H:%M') AS clock,
           Price::DECIMAL(18, 3) AS price, replace("Customer ID", '.0', '') AS customer, Country AS country
    FROM read_csv($path, all_varchar = true, header = true, parallel = false)
), sheets AS (
    SELECT *, n > $sheet AS second FROM numbered
), invoices AS (
    SELECT invoice, second, min(n) AS place, min(clock) AS moment, max(clock) AS last FROM sheets GROUP BY ALL
), wanted AS (
    SELECT * FROM invoices AS i
    WHERE NOT (second AND EXISTS (SELECT 1 FROM invoices AS o WHERE o.invoice = i.invoice AND NOT o.second))
      AND NOT ($cut AND second = (SELECT bool_or(second) FROM sheets)
               AND last >= (SELECT arg_max(clock, n) FROM sheets) - to_seconds($gap))
)
SELECT n, place, invoice, moment, code, {words} AS words, quantity, price, quantity * price AS amount,
       customer, country, invoice[1] = 'C' AS credit
FROM sheets JOIN wanted USING (invoice, second)
"""


def connect_lines(limit: int | None = None, memory_mb: int = 120, *, words: bool = False) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB with the table `line`: the lines of the first `limit` rows, each once, whole invoices only.

    `place` orders invoices, `moment` is the time of the invoice on the clock of London. The texts of the
    lines, `words`, are empty unless they are requested.
    """
    connection = connect_file(memory_mb)
    with tempfile.TemporaryDirectory(prefix="eventfold-retail-") as folder:
        path = unpack(SOURCE, Path(folder), None if limit is None else limit + 1)
        given: dict[str, Any] = {"path": str(path), "sheet": SHEET_ROWS, "gap": GAP.total_seconds()}
        connection.execute(
            _LINES.format(words="words" if words else "''"), given | {"cut": limit is not None and _is_cut(path, limit)}
        )
    return connection


def _is_cut(path: Path, limit: int) -> bool:
    """Whether the file was longer than the limit: then its last invoices may be incomplete."""
    with path.open("rb") as opened:
        return sum(1 for _ in opened) > limit
