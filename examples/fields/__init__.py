"""Examples of ten fields of use, on real data: a folder each, with `app.py`, `load.py` and `check.py`."""
