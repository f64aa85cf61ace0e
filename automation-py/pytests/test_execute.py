"""`execute` and `route`: a ticket and its classification select the script."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from automation import (
    Automation,
    AutomationNotPossibleError,
    Execution,
    InvalidRequestError,
    NoScriptForCategoryError,
)

TICKET = {"id": "T-1", "issue_text": "hello?", "user": {"name": "Zoë", "floors": [1, 2.5, None]}}


def classified(category: str, **more: Any) -> dict[str, Any]:
    return {"category": category, "automation_possible": True, **more}


def test_the_category_selects_the_script(helpdesk: Automation) -> None:
    run = helpdesk.execute(ticket=TICKET, classification=classified("Greeting"))
    assert (run.status, run.success, run.reason, run.failure) == ("completed", True, None, None)
    assert (run.script_name, run.ticket_id) == ("hello.py", "T-1")
    assert (run.trigger, run.execution_type) == ("ticket", "automated")
    assert run.parsed_output == {"hello": "world"}
    assert json.loads(run.output) == run.parsed_output
    assert run.parameters == {"name": "world", "dry_run": False}


def test_the_script_gets_the_whole_ticket(helpdesk: Automation) -> None:
    classification = classified("Echo", confidence=0.75, model="m1")
    run = helpdesk.execute(TICKET, classification, actor="ana")
    assert run.parsed_output == {"ticket": TICKET, "classification": classification}
    assert run.actor == "ana"


def test_times_are_aware_and_lengths_are_seconds(helpdesk: Automation) -> None:
    before = datetime.datetime.now(datetime.timezone.utc)
    run = helpdesk.execute(TICKET, classified("Greeting"))
    after = datetime.datetime.now(datetime.timezone.utc)
    assert run.started_at.tzinfo is datetime.timezone.utc
    assert run.completed_at is not None and run.duration is not None and run.queue_time is not None
    millisecond = datetime.timedelta(milliseconds=1)
    assert before - millisecond <= run.started_at <= run.completed_at <= after + millisecond
    assert 0 < run.duration < (after - before).total_seconds()
    assert 0 <= run.queue_time < (after - before).total_seconds()


def test_a_run_is_a_value(helpdesk: Automation) -> None:
    run = helpdesk.execute(TICKET, classified("Greeting"))
    again = helpdesk.get(run.id)
    other = helpdesk.execute(TICKET, classified("Greeting"))
    assert run == again and hash(run) == hash(again)
    assert run != other and run != "run"
    assert len({run, again, other}) == 2
    assert repr(run) == f"Execution(id='{run.id}', script_name='hello.py', status='completed')"
    with pytest.raises(AttributeError):
        run.status = "failed"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Execution()


def test_a_run_becomes_json(helpdesk: Automation) -> None:
    run = helpdesk.execute(TICKET, classified("Greeting"))
    fields = json.loads(json.dumps(run.to_dict()))
    properties = {name for name in dir(run) if not name.startswith("_")}
    assert set(fields) == properties - {"raise_for_status", "to_dict"}
    assert fields["started_at"] == run.started_at.isoformat()
    assert fields["parsed_output"] == {"hello": "world"}


def test_a_changed_answer_changes_nothing(helpdesk: Automation) -> None:
    run = helpdesk.execute(TICKET, classified("Greeting"))
    assert run.parsed_output is not None
    run.parsed_output["hello"] = "changed"
    assert run.parsed_output == {"hello": "world"}


def test_route_says_what_would_run(helpdesk: Automation) -> None:
    route = helpdesk.route(TICKET, classified(" greeting "))
    assert (route.script_name, route.category, route.alternatives) == ("hello.py", "Greeting", [])
    assert route.script_version == helpdesk.script("hello.py").version
    assert "Greeting" in route.reason
    assert helpdesk.stats().total == 0


def test_no_script_for_the_category(helpdesk: Automation) -> None:
    for verb in (helpdesk.execute, helpdesk.route):
        with pytest.raises(NoScriptForCategoryError, match="Coffee") as raised:
            verb(TICKET, classified("Coffee"))
        assert raised.value.code == "no_script_for_category"
        assert isinstance(raised.value, LookupError)


def test_the_classification_says_no(helpdesk: Automation) -> None:
    with pytest.raises(AutomationNotPossibleError, match="T-1") as raised:
        helpdesk.execute(TICKET, {"category": "Greeting", "automation_possible": False})
    assert raised.value.code == "automation_not_possible"


@pytest.mark.parametrize(
    ("ticket", "pointers"),
    [
        ({}, ["/ticket/id"]),
        ({"id": 7}, ["/ticket/id"]),
        ({"id": " x"}, ["/ticket/id"]),
        ({"id": "T", "when": datetime.date(2026, 1, 31)}, ["/ticket/when"]),
        ({"id": "T", "a/b": [{"c": {1, 2}}]}, ["/ticket/a~1b/0/c"]),
        ({"id": "T", "n": 2**53}, ["/ticket/n"]),
        ({"id": "T", "n": float("nan")}, ["/ticket/n"]),
        ({"id": "T", "text": "a\0b"}, ["/ticket/text"]),
        ({"id": "T", "text": "\ud800"}, ["/ticket/text"]),
        ({"id": "T", 7: "x"}, ["/ticket"]),
    ],
)
def test_a_bad_ticket_is_named(
    helpdesk: Automation, ticket: dict[str, Any], pointers: list[str]
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        helpdesk.execute(ticket, classified("Greeting"))
    assert [problem["pointer"] for problem in raised.value.problems] == pointers


@pytest.mark.parametrize(
    ("classification", "pointers"),
    [
        ({}, ["/classification/category", "/classification/automation_possible"]),
        (classified("Greeting", automation_possible=1), ["/classification/automation_possible"]),
        (classified("Greeting", automation_possible="yes"), ["/classification/automation_possible"]),
        (classified("Greeting", confidence="high"), ["/classification/confidence"]),
        (classified(""), ["/classification/category"]),
        (classified("Greeting", more=object()), ["/classification/more"]),
    ],
)
def test_a_bad_classification_is_named(
    helpdesk: Automation, classification: dict[str, Any], pointers: list[str]
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        helpdesk.execute(TICKET, classification)
    assert [problem["pointer"] for problem in raised.value.problems] == pointers


def test_an_unknown_confidence_may_be_none(helpdesk: Automation) -> None:
    run = helpdesk.execute(TICKET, classified("Echo", confidence=None))
    assert run.parsed_output is not None
    assert run.parsed_output["classification"] == classified("Echo")


def test_a_ticket_that_refers_to_itself_is_refused(helpdesk: Automation) -> None:
    ticket: dict[str, Any] = {"id": "T"}
    ticket["self"] = ticket
    with pytest.raises(InvalidRequestError, match="deep"):
        helpdesk.execute(ticket, classified("Greeting"))
