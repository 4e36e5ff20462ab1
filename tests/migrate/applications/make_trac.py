"""Makes a Trac environment with tickets that change: `make_trac.py FOLDER TICKETS`. Its database is db/trac.db."""

import sys

from trac.env import Environment
from trac.ticket.model import Ticket

folder, tickets = sys.argv[1], int(sys.argv[2])
environment = Environment(folder, create=True, options=[("trac", "database", "sqlite:db/trac.db")])
for number in range(tickets):
    ticket = Ticket(environment)
    for name, value in {"summary": f"Ticket {number}", "reporter": "anna", "status": "new", "type": "defect",
                        "component": "component1", "milestone": "milestone1", "version": "1.0"}.items():  # fmt: skip
        ticket[name] = value
    ticket.insert()
    for status in ("assigned", "accepted", "closed")[: number % 4]:
        ticket["status"] = status
        if status == "closed":
            ticket["resolution"] = "fixed"
        ticket.save_changes("bert", f"to {status}")
environment.shutdown()
