"""Runs the shop, which is part of the package: the same as `eventfold demo shop`, in a temporary file.

Knows: where the shop is. Does not know: how it works; open `src/eventfold/demo/shop/app.py`.
"""

from __future__ import annotations

import sys

from eventfold.demo.fields import main
from eventfold.demo.shop.check import check
from eventfold.demo.shop.load import load

if __name__ == "__main__":
    sys.exit(main("shop", load, check))
