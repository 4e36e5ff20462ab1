"""Makes a tracker of Roundup with issues that change: `make_roundup.py FOLDER ISSUES`. Its database is db/db."""

import sys

from roundup import configuration, init, instance, password
from roundup.admin import AdminTool

home, issues = sys.argv[1], int(sys.argv[2])
init.install(home, AdminTool().listTemplates()["classic"]["path"])
config = configuration.CoreConfig(home)
for name, value in {"RDBMS_BACKEND": "sqlite", "MAIL_DOMAIN": "example.com", "MAIL_HOST": "localhost",
                    "TRACKER_WEB": "http://localhost/"}.items():  # fmt: skip
    config[name] = value
config.save()
tracker = instance.open(home)
tracker.init(password.Password("not-a-secret", config=tracker.config))
database = tracker.open("admin")
states = [database.status.lookup(name) for name in ("unread", "chatting", "resolved")]
for number in range(issues):
    issue = database.issue.create(title=f"Issue {number}")
    database.commit()
    for step, status in enumerate(states[: number % 4]):
        database.issue.set(issue, status=status, title=f"Issue {number}, step {step}")
        database.commit()
database.issue.retire("1")
database.commit()
database.close()
