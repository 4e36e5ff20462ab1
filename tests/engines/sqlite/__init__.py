"""Tests of the SQLite engine: faults planted in processes, files and disks, and what must survive them."""
