"""Helpdesk code that imports the module: tickets in, automation runs out, in one process.

Run it with ``python examples/helpdesk/helpdesk.py`` in an environment that has the ``automation`` module. Scripts
only say what they would do on this machine; with ``--for-real`` they do it: files are removed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from automation import Automation, AutomationError, Execution, NoScriptForCategoryError

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


def run(helpdesk: Automation, ticket: dict[str, str], for_real: bool) -> Execution | None:
    """Runs what a ticket's classification selects; ``None`` if that is nothing."""
    classification = classify(ticket)
    if for_real:
        try:
            return helpdesk.execute(ticket=ticket, classification=classification)
        except NoScriptForCategoryError:
            return None
    # A person can name a script, here as a dry run that changes nothing.
    for script in helpdesk.scripts():
        if script.category == classification["category"]:
            return helpdesk.manual(script.name, ticket_id=ticket["id"], dry_run=True)
    return None


def handle(helpdesk: Automation, ticket: dict[str, str], for_real: bool) -> str:
    """Runs a ticket's script, and says in a sentence what came of it."""
    try:
        execution = run(helpdesk, ticket, for_real)
    except AutomationError as error:
        return f"{ticket['id']}: could not be automated now ({error.code})"
    if execution is None:
        return f"{ticket['id']}: goes to a person"
    if execution.status == "completed":
        done = "solved by" if for_real else "could be solved by"
        return f"{ticket['id']}: {done} {execution.script_name}: {execution.parsed_output}"
    return f"{ticket['id']}: {execution.script_name} {execution.status}, {execution.failure}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Handles two tickets.")
    parser.add_argument("--for-real", action="store_true", help="let scripts change this machine")
    for_real = parser.parse_args().for_real
    with Automation(scripts=SCRIPTS, storage="sqlite://helpdesk.db") as helpdesk:
        for ticket in TICKETS:
            print(handle(helpdesk, ticket, for_real))
        stats = helpdesk.stats()
        print(f"{stats.successful} of {stats.total} runs completed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
