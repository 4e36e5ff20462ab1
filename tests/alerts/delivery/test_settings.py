"""Targets from a TOML file and the environment: each kind, and each mistake named with its key, without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventfold.alerts.delivery.policy import SECOND
from eventfold.alerts.delivery.settings import deliveries_of
from eventfold.errors import EventfoldError
from tests.alerts.delivery.receiving import SECRET

FILE = """
[deliver.console]
to = "log"

[deliver.pager]
to = "webhook"
url = "https://hooks.example.com/T0KEN"
severities = ["page"]
group_page = 0.5
headers = { authorization = "Bearer T0KEN" }

[deliver.mail]
to = "email"
server = "mail.example.com:587"
sender = "shop@example.com"
recipients = ["a@example.com", "b@example.com"]
user = "shop"
hours = "Europe/Berlin mon-fri 08:00-18:00"

[deliver.prometheus]
to = "alertmanager"
url = "http://127.0.0.1:9093"
labels = { team = "cards" }

[server]
port = 1
"""


def test_each_kind_is_declared_in_a_file_and_secrets_come_from_the_environment(tmp_path: Path) -> None:
    """Other tables of the file are not read; a variable overrides what the file says."""
    (tmp_path / "shop.toml").write_text(FILE)
    environment = {
        "EVENTFOLD_DELIVER__PAGER__SECRET": SECRET,
        "EVENTFOLD_DELIVER__MAIL__PASSWORD": "hunter2",
        "EVENTFOLD_DELIVER__MAIL__RECIPIENTS": "c@example.com, d@example.com",
        "EVENTFOLD_DELIVER__CONSOLE__BUDGET": "5",
        "EVENTFOLD_URL": "shop.db",
    }
    found = {each.name: each for each in deliveries_of(tmp_path / "shop.toml", environment)}
    assert list(found) == ["console", "pager", "mail", "prometheus"]
    assert found["console"].policy.budget == 5
    assert found["pager"].policy.group_page == SECOND // 2 and found["pager"].policy.severities == {"page"}
    assert found["mail"].description == "e-mail to c@example.com, d@example.com by mail.example.com:587"
    monday = 1_780_272_000 * SECOND  # 2026-06-01, 00:00 UTC
    assert found["mail"].policy.open_from("ticket", monday) == monday + 6 * 3_600 * SECOND
    assert "T0KEN" not in repr(list(found.values()))


def test_targets_may_come_from_the_environment_alone() -> None:
    """Without a file."""
    (one,) = deliveries_of(None, {"EVENTFOLD_DELIVER__CONSOLE__TO": "log", "EVENTFOLD_DELIVER__CONSOLE__GROUP": "1"})
    assert one.name == "console" and one.policy.group == SECOND


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[deliver.x]\nto = "pigeon"', "deliver.x in"),
        ("[deliver.x]\nurl = 'http://a'", "deliver.x does not say to what"),
        ('[deliver.x]\nto = "log"\nsevrities = ["page"]', "Did you mean severities?"),
        ('[deliver.x]\nto = "log"\nurl = "https://example.com/T0KEN"', "no setting of a target of the kind log"),
        ('[deliver.x]\nto = "webhook"', "has no url"),
        ('[deliver.x]\nto = "webhook"\nurl = "T0KEN"', "no address"),
        ('[deliver.x]\nto = "webhook"\nurl = "https://a.example"\nsecret = "T0KEN"', "not valid base64"),
        ('[deliver.x]\nto = "log"\nhours = "always"', "deliver.x.hours"),
        ('[deliver.x]\nto = "log"\nhours = "Mars/Base mon-fri 08:00-18:00"', "Mars/Base"),
        ('[deliver.x]\nto = "log"\ngroup = "soon"', "deliver.x in"),
        ('[deliver.X-y]\nto = "log"', "X-y"),
        ("deliver = 3", "no table of targets"),
        ("[deliver", "not TOML"),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path: Path, text: str, says: str) -> None:
    """In two sentences, which do not quote what may be a secret."""
    (tmp_path / "shop.toml").write_text(text)
    with pytest.raises(EventfoldError) as refused:
        deliveries_of(tmp_path / "shop.toml", {})
    if "[deliver." in text:
        assert f"deliver.{text[len('[deliver.') : text.index(']')]}" in refused.value.what
    assert says in str(refused.value) and refused.value.remedy and "T0KEN" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(EventfoldError, match="cannot be read"):
        deliveries_of(tmp_path / "none.toml", {})
