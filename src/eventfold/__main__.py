"""Runs `python -m eventfold`, which is the same as the command `eventfold`.

Knows: where the command line is. Does not know: any command.
"""

from __future__ import annotations

from eventfold.cli import main

if __name__ == "__main__":
    main()
