"""The families of rounds, in the order in which they are run.

Knows: the module of each family, and its number of faults at scale 1. Does not know: how rounds are run.
"""

from __future__ import annotations

from soak import (
    containers,
    cuts,
    failovers,
    faults,
    flips,
    full,
    generated,
    kills,
    merges,
    migration_faults,
    migrations,
    next_python,
    power,
    remote_cuts,
    server_kills,
    slow_tests,
    standby,
    storms,
    sweeps,
)
from soak.cluster import cuts as cluster_cuts
from soak.cluster import faults as cluster_faults
from soak.cluster import holders, races, rot
from soak.rounds import Family

FAMILIES = (
    Family("kills-sqlite", "kills", 1_300, kills.sqlite),
    Family("merges-sqlite", "kills", 300, merges.merges, longest=240.0),
    Family("kills-postgres", "kills", 700, kills.postgres, postgres=True),
    Family("kills-server", "server kills", 60, kills.server, postgres=True, longest=240.0),
    Family("generated-calls", "generated calls", 30_000, generated.generated_calls, longest=900.0),
    Family("server-kills-sqlite", "kills", 200, server_kills.sqlite, longest=600.0),
    Family("server-kills-postgres", "kills", 100, server_kills.postgres, postgres=True, longest=600.0),
    Family("power-files", "power cuts", 150, power.file_system, root=True),
    Family("power-sectors", "power cuts", 200, power.sectors),
    Family("power-postgres", "power cuts", 20, power.postgres, root=True, postgres=True, longest=240.0),
    Family("full-disks", "full disks", 200, full.full, root=True, longest=150.0),
    Family("nth-calls", "faults", 400, faults.nth_call),
    Family("flips-sqlite", "flips", 500, flips.sqlite),
    Family("flips-postgres", "flips", 200, flips.postgres, postgres=True),
    Family("cuts-postgres", "cuts", 400, cuts.postgres, postgres=True),
    Family("cuts-remote", "cuts", 2_000, remote_cuts.sqlite, longest=600.0),
    Family("failovers", "failovers", 200, failovers.postgres, postgres=True, longest=240.0),
    Family("standby", "failovers", 40, standby.postgres, postgres=True, program="patroni", longest=600.0),
    Family("storms-sqlite", "storms", 100, storms.sqlite),
    Family("storms-postgres", "storms", 100, storms.postgres, postgres=True),
    Family("sweeps-sqlite", "calls swept", 14, sweeps.sqlite, longest=300.0),
    Family("sweeps-postgres", "calls swept", 14, sweeps.postgres, postgres=True, longest=300.0),
    Family("containers-sqlite", "rounds of containers", 100, containers.sqlite, root=True),
    Family("containers-postgres", "rounds of containers", 100, containers.postgres, root=True, postgres=True),
    Family("cluster-leaders", "leaders killed", 36, cluster_faults.leaders, nats=True, longest=300.0),
    Family("cluster-nodes", "cluster faults", 36, cluster_faults.nodes, nats=True, longest=300.0),
    Family("cluster-power", "power cuts", 24, cluster_faults.power, nats=True, root=True, longest=300.0),
    Family("cluster-pauses", "pauses", 24, cluster_faults.pauses, nats=True, longest=300.0),
    Family("cluster-delays", "cluster faults", 40, cluster_faults.delays, nats=True, longest=300.0),
    Family("cluster-writers", "cluster faults", 60, cluster_faults.writers, nats=True, longest=300.0),
    Family("cluster-holders", "cluster faults", 40, holders.holders, nats=True, longest=300.0),
    Family("cluster-cuts", "cuts", 24, cluster_cuts.cuts, nats=True, root=True, longest=300.0),
    Family("cluster-races", "races", 120, races.racing, nats=True, longest=300.0),
    Family("cluster-flips", "flips", 24, rot.flips, nats=True, longest=300.0),
    Family("migrate-histories", "histories", 200, migration_faults.histories, postgres=True, longest=300.0),
    Family("migrate-mariadb", "server kills", 50, migration_faults.mariadb_kills, program="mariadbd", longest=300.0),
    Family("migrate-oscar", "moves there and back", 6, migrations.oscar, postgres=True, longest=900.0),
    Family("slow-tests", "suites", len(slow_tests.SUITES), slow_tests.full, postgres=True, longest=1_800.0),
    Family("python-3.13", "suites", 1, next_python.suite, root=True, program="debootstrap", longest=3_000.0),
)
