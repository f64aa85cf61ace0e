"""`quarantined` and `release`: script versions that are kept out of the process."""

from __future__ import annotations

import datetime
import json
import sqlite3
from pathlib import Path
from typing import Callable

import pytest

from automation import (
    Automation,
    ConflictError,
    InvalidRequestError,
    Quarantined,
    ScriptNotFoundError,
    UnsupportedError,
)

RUN = "01900000-0000-7000-8000-000000000001"


@pytest.fixture
def after_crash(database: str, open_helpdesk: Callable[..., Automation]) -> Automation:
    """A handle on that database, without an isolated executor."""
    return open_helpdesk(storage=database, workers=1, isolated=False)


@pytest.fixture
def database(folder: Path, tmp_path: Path, open_helpdesk: Callable[..., Automation]) -> str:
    """A database which says that a process died while `hello.py` ran."""
    file = tmp_path / "a.db"
    before = open_helpdesk(storage=f"sqlite://{file}", workers=1)
    version = before.script("hello.py").version
    before.shutdown(grace=0)
    finding = {
        "script_name": "hello.py",
        "concern": "crashed",
        "execution_id": RUN,
        "at": "2026-01-31T12:00:00Z",
    }
    with sqlite3.connect(file) as database:
        database.execute(
            "INSERT INTO automation_records (kind, key, value, revision) VALUES ('quarantine', ?, ?, 1)",
            (version, json.dumps(finding)),
        )
    database.close()
    return f"sqlite://{file}"


def test_what_is_kept_out_runs_in_a_process_of_its_own(database: str, open_helpdesk: Callable[..., Automation]) -> None:
    helpdesk = open_helpdesk(storage=database, workers=1)
    [one] = helpdesk.quarantined()
    assert (one.concern, one.consequence) == ("crashed", "isolated")
    run = helpdesk.manual("hello.py")
    assert (run.status, run.isolation) == ("completed", "process")
    helpdesk.release("hello.py")
    assert helpdesk.manual("hello.py").isolation == "in-process"


def test_nothing_is_kept_out(helpdesk: Automation) -> None:
    run = helpdesk.manual("hello.py")
    assert (run.isolation, run.concern) == ("in-process", None)
    assert helpdesk.quarantined() == []
    assert helpdesk.check()["quarantined"] == []


def test_what_is_kept_out_is_refused_until_the_release(after_crash: Automation) -> None:
    [one] = after_crash.quarantined()
    assert (one.script_name, one.script_version) == ("hello.py", after_crash.script("hello.py").version)
    assert (one.concern, one.consequence, one.execution_id) == ("crashed", "refused", RUN)
    assert one.at == datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc)
    with pytest.raises(UnsupportedError, match="hello.py.*release"):
        after_crash.manual("hello.py")
    assert after_crash.manual("echo.py").status == "completed"
    classification = {"category": "Greeting", "automation_possible": True}
    assert after_crash.route({"id": "T-1"}, classification).concern == "crashed"
    assert after_crash.check()["quarantined"][0]["script_name"] == "hello.py"

    assert after_crash.release("hello.py", actor="ana") == [one]
    assert after_crash.quarantined() == []
    assert after_crash.manual("hello.py").status == "completed"


def test_one_version_is_released(after_crash: Automation) -> None:
    [one] = after_crash.quarantined()
    assert after_crash.release(one.script_version) == [one]


def test_a_release_that_means_nothing(helpdesk: Automation) -> None:
    with pytest.raises(ConflictError, match="hello.py"):
        helpdesk.release("hello.py")
    with pytest.raises(ScriptNotFoundError, match="absent.py"):
        helpdesk.release("absent.py")
    with pytest.raises(InvalidRequestError):
        helpdesk.release("hello.py", actor="")


def test_an_entry_is_a_value(after_crash: Automation) -> None:
    [one] = after_crash.quarantined()
    assert isinstance(one, Quarantined)
    assert hash(one) == hash(after_crash.quarantined()[0])
    assert repr(one) == "Quarantined(script_name='hello.py', concern='crashed', consequence='refused')"
    fields = json.loads(json.dumps(one.to_dict()))
    properties = {name for name in dir(one) if not name.startswith("_")}
    assert set(fields) == properties - {"to_dict"}
    assert fields["at"] == "2026-01-31T12:00:00+00:00"
