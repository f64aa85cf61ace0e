"""The ends of runs that the storage does not take are kept in a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable

import pytest

from automation import Automation, InvalidRequestError, StorageError


def test_it_is_beside_a_database_that_is_a_file(
    open_helpdesk: Callable[..., Automation], tmp_path: Path
) -> None:
    helpdesk = open_helpdesk(storage=f"sqlite://{tmp_path}/a.db", executions_max=4)
    spool = tmp_path / "a.db.spool"
    assert (spool.stat().st_mode & 0o777, spool.stat().st_size) == (0o600, 4096 + 4 * 32768)
    assert helpdesk.manual("hello.py").status == "completed"
    health = helpdesk.check()
    assert (health["ready"], health["spooled"]) == (True, 0)


def test_it_is_where_it_is_told_to_be_and_serves_one_handle(
    open_helpdesk: Callable[..., Automation], tmp_path: Path
) -> None:
    spool = tmp_path / "elsewhere.spool"
    first = open_helpdesk(spool=spool)
    assert spool.exists()
    with pytest.raises(InvalidRequestError, match="elsewhere.spool is in use"):
        open_helpdesk(spool=spool)
    first.shutdown(grace=0)
    open_helpdesk(spool=str(spool))


def test_a_database_that_went_away_closes_the_intake_until_it_is_back(
    open_helpdesk: Callable[..., Automation], tmp_path: Path
) -> None:
    database = tmp_path / "a.db"
    helpdesk = open_helpdesk(storage=f"sqlite://{database}")
    assert helpdesk.manual("hello.py").status == "completed"
    database.rename(tmp_path / "b.db")
    with pytest.raises(StorageError, match="a.db was removed"):
        helpdesk.manual("hello.py")
    health = helpdesk.check()
    assert not health["ready"] and "a.db was removed" in health["storage_error"]
    (tmp_path / "b.db").rename(database)
    deadline = time.monotonic() + 20
    while not helpdesk.check()["ready"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert helpdesk.manual("hello.py").status == "completed"
