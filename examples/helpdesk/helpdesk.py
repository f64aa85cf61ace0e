"""Helpdesk code that imports the module: tickets in, automation runs out, in one process.

Run it with ``python examples/helpdesk/helpdesk.py`` in an environment that has the ``automation`` module.
"""

from __future__ import annotations

import sys
from pathlib import Path

from automation import Automation, AutomationError, NoScriptForCategoryError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

TICKETS = [
    {"id": "HD-1", "user_id": "jdoe", "issue_text": "My computer is very slow", "category": "device_slow"},
    {"id": "HD-2", "user_id": "mroe", "issue_text": "The printer prints blank pages", "category": "printer"},
]


def classify(ticket: dict[str, str]) -> dict[str, object]:
    """Stands in for the helpdesk's own classifier."""
    categories = {"device_slow": "Device Slow", "vpn": "VPN Issue", "password": "Password Reset"}
    category = categories.get(ticket["category"], "Other")
    return {"category": category, "priority": "medium", "automation_possible": True, "confidence": 0.9}


def handle(helpdesk: Automation, ticket: dict[str, str]) -> str:
    """Runs what a ticket's classification selects, and says in a sentence what came of it."""
    try:
        run = helpdesk.execute(ticket=ticket, classification=classify(ticket))
    except NoScriptForCategoryError:
        return f"{ticket['id']}: goes to a person"
    except AutomationError as error:
        return f"{ticket['id']}: could not be automated now ({error.code})"
    if run.status == "completed":
        return f"{ticket['id']}: solved by {run.script_name}: {run.parsed_output}"
    return f"{ticket['id']}: {run.script_name} {run.status}, {run.failure}"


def main() -> int:
    with Automation(scripts=SCRIPTS, storage="sqlite://helpdesk.db") as helpdesk:
        for ticket in TICKETS:
            print(handle(helpdesk, ticket))

        # A person can name a script, here as a dry run that changes nothing.
        run = helpdesk.manual("disk_cleanup.py", {"dry_run": True}, ticket_id="HD-1")
        print(f"dry run: {run.parsed_output}")

        stats = helpdesk.stats().all
        print(f"{stats.successful} of {stats.total} runs completed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
