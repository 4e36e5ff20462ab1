"""`eventfold grafana` and `eventfold alert-rules`: the dashboard and the alert rules, as files for other programs.

Knows: where they are made. Does not know: metrics, queries.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer


def grafana() -> None:
    """Print a dashboard for Grafana, as JSON.

    Import it in Grafana under Dashboards, New, Import. Its rows are the log, read models, processes and the server.
    """
    from eventfold.monitoring.dashboard import dashboard

    sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")


def alert_rules(
    job: Annotated[
        str, typer.Option("--job", metavar="JOB", help="The name of the job in the settings of Prometheus.")
    ] = "eventfold",
) -> None:
    """Print alert rules for Prometheus, as YAML.

    Name the file under rule_files in the settings of Prometheus. Each alert says what is wrong, and what to type.
    """
    from eventfold.monitoring.rules import rule_file
    from eventfold.monitoring.yaml import to_yaml

    sys.stdout.write(to_yaml(rule_file(job)))
