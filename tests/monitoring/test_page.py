"""The pages about metrics: commands are run, files are accepted, the reference is as the table says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, blocks
from tests.monitoring import reference
from tests.monitoring.shop import Samples
from tests.server.serving import Served, wait_until
from tests.support.programs import needs_program

PAGE = ROOT / "docs" / "how-to" / "metrics.md"
STARTED = {"pip", "prometheus", "prometheus-alertmanager", "serve"}  # commands that go on, or that install


def file_named(name: str) -> str:
    """The YAML block after the sentence "This is `NAME`"."""
    text = PAGE.read_text("utf-8")
    found = re.search(rf"This is `{name}`.*?```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None, name
    return found[1]


def shell(folder: Path, command: str) -> str:
    """Run a command of the page in a shell."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "EVENTFOLD_ACCESS__SECRET": "5e" * 32}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@needs_program("promtool", "prometheus")
@needs_program("amtool", "prometheus-alertmanager")
@needs_program("curl", "curl")
def test_the_page_is_followed_line_by_line(tmp_path: Path) -> None:
    """From the first command to the files of Prometheus, Grafana, Alertmanager and node_exporter."""
    lines = [line[2:] for block in blocks(PAGE) if block.language == "console" for line in block.lines]
    (serve,) = (line for line in lines if line.startswith("eventfold serve"))
    for name in ("prometheus.yml", "alertmanager.yml"):
        (tmp_path / name).write_text(file_named(name))
    ran = 0
    with Served(tmp_path, *shlex.split(serve)[2:]) as server:
        for line in lines:
            words = shlex.split(line)
            if STARTED & {words[0], *words[1:2]}:
                continue
            command = line.replace("http://127.0.0.1:8000", server.url)
            answer = shell(tmp_path, command)
            ran += 1
            if words[0] == "curl":
                assert Samples(answer)("appends_total", outcome="written") == 0
                wait_until(lambda: Samples(shell(tmp_path, command))("head_position") == 0, "the state")  # noqa: B023
    assert ran == 8
    state = (tmp_path / "bank.prom").read_text()
    assert shell(tmp_path, "promtool check metrics < bank.prom") == ""
    assert Samples(state)("head_position", store="bank") == 0
    assert (tmp_path / "dashboard.json").read_text().startswith("{")


def test_the_page_names_metrics_and_settings_that_exist() -> None:
    """Also in its text."""
    from eventfold.monitoring.rules import rules
    from eventfold.monitoring.table import BY_NAME
    from eventfold.server.settings import MetricsSettings

    text = PAGE.read_text("utf-8")
    assert set(re.findall(r"eventfold_(\w+)", text)) <= BY_NAME.keys()
    assert set(re.findall(r"Eventfold([A-Z]\w+)", text)) <= {each.name for each in rules()}
    assert set(re.findall(r"metrics\.(\w+) =", text)) <= set(MetricsSettings.__struct_fields__)


def test_the_reference_of_metrics_is_what_the_table_says() -> None:
    """After a change: python -m tests.monitoring.reference."""
    assert reference.PAGE.read_text("utf-8") == reference.text(), "update it: python -m tests.monitoring.reference"
