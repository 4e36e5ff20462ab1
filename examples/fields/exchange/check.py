"""Runs the exchange, which is part of the package: the same as `eventfold demo exchange`, in a temporary file.

Knows: where the exchange is. Does not know: how it works; open `src/eventfold/demo/exchange/app.py`.
"""

from __future__ import annotations

import sys

from eventfold.demo.exchange.check import check
from eventfold.demo.exchange.load import load
from eventfold.demo.fields import main

if __name__ == "__main__":
    sys.exit(main("exchange", load, check))
