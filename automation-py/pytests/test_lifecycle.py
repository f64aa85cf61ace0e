"""`executions`, `prune` and `back_up`: what is recorded, listed, deleted and copied."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from automation import Automation, InvalidRequestError, UnsupportedError


def now() -> datetime:
    return datetime.now(timezone.utc)


def test_executions_are_listed_across_tickets(helpdesk: Automation) -> None:
    first = helpdesk.manual("hello.py", ticket_id="T-1", actor="ann")
    second = helpdesk.manual("hello.py", {"name": "x"}, ticket_id="T-2")
    assert [run.id for run in helpdesk.executions()] == [second.id, first.id]
    page = helpdesk.executions(limit=1)
    (rest,) = helpdesk.executions(limit=1, cursor=page.next)
    assert (page[0].id, rest.id) == (second.id, first.id)
    assert (rest.output, rest.parsed_output) == ("", None) and first.output
    assert list(helpdesk.executions(actor="ann", with_output=True)) == [first]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"ticket_id": "T-1"}, 1),
        ({"script_name": "echo.py"}, 0),
        ({"statuses": ["completed"]}, 1),
        ({"statuses": ["failed", "cancelled"]}, 0),
        ({"actor": "Ann"}, 0),
        ({"since": now() - timedelta(days=1)}, 1),
        ({"until": now() - timedelta(days=1)}, 0),
        ({"since": datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=9)))}, 1),
    ],
)
def test_filters(helpdesk: Automation, filters: Any, found: int) -> None:
    helpdesk.manual("hello.py", ticket_id="T-1", actor="ann")
    assert len(helpdesk.executions(**filters)) == found


def test_times_need_a_zone_and_days_no_time(helpdesk: Automation) -> None:
    for wrong in (datetime(2026, 1, 1), date(2026, 1, 1), "2026-01-01"):
        with pytest.raises(TypeError, match="argument 'since': expected a datetime.datetime with a time zone"):
            helpdesk.executions(since=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="argument 'before': expected a datetime.date"):
        helpdesk.prune(now())


def test_prune_takes_what_is_old_and_nothing_of_today(helpdesk: Automation) -> None:
    run = helpdesk.manual("hello.py")
    assert helpdesk.prune(now().date()) == 0
    assert helpdesk.get(run.id) == run
    with pytest.raises(InvalidRequestError, match="/before"):
        helpdesk.prune(now().date() + timedelta(days=2))
    with pytest.raises(InvalidRequestError, match="/statuses"):
        helpdesk.prune(now().date(), statuses=["running"])


def test_a_back_up_is_a_database_with_the_same_runs(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with Automation(folder, f"sqlite://{tmp_path}/a.db") as helpdesk:
        run = helpdesk.manual("hello.py")
        assert helpdesk.back_up(copy) == copy.stat().st_size
        with pytest.raises(InvalidRequestError, match="/path"):
            helpdesk.back_up(copy)
    with Automation(folder, f"sqlite://{copy}") as helpdesk:
        assert helpdesk.get(run.id) == run
        assert helpdesk.stats().total == 1
    with Automation(folder) as helpdesk, pytest.raises(UnsupportedError):
        helpdesk.back_up(tmp_path / "other.db")


def test_a_retention_is_checked_and_taken(folder: Path) -> None:
    for wrong in ({"retention_days": -1}, {"retention_failed_days": 3}):
        with pytest.raises(InvalidRequestError, match="/retention_"):
            Automation(folder, **wrong)
    with Automation(folder, retention_days=0, retention_failed_days=30) as helpdesk:
        assert helpdesk.check()["ready"]
