"""`logs`: a ticket's runs, newest first, page by page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from automation import Automation, InvalidRequestError, TicketNotFoundError


def test_newest_first(helpdesk: Automation) -> None:
    runs = [helpdesk.manual("hello.py", ticket_id="T-1") for _ in range(3)]
    helpdesk.manual("hello.py", ticket_id="T-2")
    page = helpdesk.logs("T-1")
    assert list(page) == runs[::-1]
    assert page.items == tuple(page)
    assert page.next is None


def test_a_page_is_a_sequence(helpdesk: Automation) -> None:
    first, second = (helpdesk.manual("hello.py", ticket_id="T-1") for _ in range(2))
    page = helpdesk.logs("T-1")
    assert len(page) == 2 and bool(page)
    assert (page[0], page[-1], page[1:]) == (second, first, (first,))
    assert first in page
    assert page == helpdesk.logs("T-1") and page != helpdesk.logs("T-1", limit=1)
    assert json.loads(json.dumps(page.to_dict()))["items"][0]["id"] == second.id
    with pytest.raises(IndexError):
        page[2]


def test_pages_visit_each_run_once(helpdesk: Automation) -> None:
    runs = [helpdesk.manual("hello.py", ticket_id="T-1") for _ in range(5)]
    seen: list[Any] = []
    cursor = None
    while True:
        page = helpdesk.logs("T-1", limit=2, cursor=cursor)
        seen += page
        cursor = page.next
        assert ("more follow" in repr(page)) is (cursor is not None)
        if cursor is None:
            break
    assert seen == runs[::-1]


def test_conditions_compose(helpdesk: Automation) -> None:
    good = helpdesk.manual("hello.py", ticket_id="T-1")
    bad = helpdesk.manual("exits.py", ticket_id="T-1")
    assert list(helpdesk.logs("T-1", script_name="hello.py")) == [good]
    assert list(helpdesk.logs("T-1", statuses=["failed"])) == [bad]
    assert list(helpdesk.logs("T-1", statuses=("failed", "completed"))) == [bad, good]
    assert list(helpdesk.logs("T-1", script_name="hello.py", statuses=["failed"])) == []


def test_an_unknown_ticket(helpdesk: Automation) -> None:
    with pytest.raises(TicketNotFoundError, match="T-9") as raised:
        helpdesk.logs("T-9")
    assert isinstance(raised.value, LookupError)
    assert raised.value.code == "ticket_not_found"


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        ({"limit": 0}, "/limit"),
        ({"limit": 501}, "/limit"),
        ({"limit": -1}, "/limit"),
        ({"cursor": "nowhere"}, "/cursor"),
        ({"statuses": ["done"]}, "/statuses"),
    ],
)
def test_what_can_not_be_asked(helpdesk: Automation, arguments: dict[str, Any], pointer: str) -> None:
    helpdesk.manual("hello.py", ticket_id="T-1")
    with pytest.raises(InvalidRequestError, match=pointer):
        helpdesk.logs("T-1", **arguments)


def test_runs_survive_the_handle(open_helpdesk: Callable[..., Automation], tmp_path: Path) -> None:
    storage = f"sqlite://{tmp_path}/automation.db"
    with open_helpdesk(storage=storage) as first:
        run = first.manual("hello.py", ticket_id="T-1")
    second = open_helpdesk(storage=storage)
    assert list(second.logs("T-1")) == [run]
    assert second.stats().total == 1
