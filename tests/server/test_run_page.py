"""The examples of the page about running a server: what can be read by a program is, and agrees with the server."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

from eventfold.server.settings import Settings
from eventfold.server.settings_sources import load_settings
from tests.docs.pages import ROOT, blocks
from tests.server.serving import Served

PAGE = ROOT / "docs" / "how-to" / "run-a-server.md"


def block(language: str) -> str:
    """The only block of the page in this language."""
    (found,) = [each for each in blocks(PAGE) if each.language == language]
    return "\n".join(found.lines)


def test_the_settings_of_the_page_are_accepted(tmp_path: Path) -> None:
    """Each is used, and the file starts a server with other paths."""
    (tmp_path / "server.toml").write_text(block("toml"), "utf-8")
    settings = load_settings(tmp_path / "server.toml").settings
    assert settings.stores == {"bank": "/var/lib/eventfold/bank.db"}
    assert settings.modules == ("bank.events",)
    assert settings.limits.stall_seconds == 15 != Settings().limits.stall_seconds
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "events.py").write_text("")
    text = block("toml").replace("/var/lib/eventfold", str(tmp_path)).replace("/run/eventfold", str(tmp_path))
    assert tomllib.loads(text)["access"]["keys"] == f"{tmp_path}/keys.db"
    (tmp_path / "server.toml").write_text(text.replace("keys =", "no_auth = true #"), "utf-8")
    with Served(tmp_path, "--config", "server.toml", "--create") as server:
        assert server.ask("GET /healthz").status == 200
        assert server.stop() == 0


def test_the_container_sets_variables_that_exist_and_asks_for_health() -> None:
    """A misspelt one would be refused at its start."""
    text = block("dockerfile")
    variables = dict(re.findall(r"(EVENTFOLD_\w+)=(\S+)", text))
    settings = load_settings(None, variables).settings
    assert settings.stores == {"bank": "/data/bank.db"}
    assert (settings.server.host, settings.server.create, settings.logs.format) == ("0.0.0.0", True, "json")
    assert f":{settings.server.port}/healthz" in text


def test_the_unit_stops_later_than_the_server_does_and_allows_the_connections() -> None:
    """systemd would kill it otherwise."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read_string(block("ini"))
    assert int(unit["Service"]["TimeoutStopSec"]) > Settings().server.shutdown_seconds
    assert int(unit["Service"]["LimitNOFILE"]) > Settings().limits.connections
    assert unit["Service"]["ExecStart"].endswith("eventfold serve --config /etc/eventfold/server.toml")


def test_the_proxies_use_the_socket_of_the_settings_and_do_not_buffer_streams() -> None:
    """A buffered stream would reach a follower late."""
    path = tomllib.loads(block("toml"))["server"]["unix_socket"]
    assert f"server unix:{path};" in block("nginx")
    assert "proxy_buffering off;" in block("nginx")
    assert f"unix/{path}" in block("caddy")
    assert "flush_interval -1" in block("caddy")
