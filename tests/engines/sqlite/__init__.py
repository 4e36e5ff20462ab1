"""Tests of the engine over one file: faults planted in processes, files and disks, and what must survive them."""
