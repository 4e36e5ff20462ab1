"""`python -m eventfold.demo.flights`: the same run without the command line's extra. Knows: arguments, exit codes."""

from __future__ import annotations

import argparse
import sys

from eventfold.demo.flights import DATABASE, run
from eventfold.errors import EventfoldError


def main() -> int:
    """Parse the arguments and run. An EventfoldError is printed on standard error; the exit code is 2 then."""
    parser = argparse.ArgumentParser(prog="python -m eventfold.demo.flights", description=run.__doc__)
    parser.add_argument("--db", metavar="FILE", help=f"the file of the log (default: {DATABASE})")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N flights only")
    parser.add_argument("--json", action="store_true", help="one JSON object in place of the report")
    given = parser.parse_args()
    try:
        return run(given.db, given.limit, given.json)
    except EventfoldError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
