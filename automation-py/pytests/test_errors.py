"""What is raised: one exception a kind, each with its code, each under `AutomationError`."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

import automation
from automation import (
    Automation,
    AutomationError,
    ClosedError,
    InvalidRequestError,
    OverloadedError,
    StorageError,
    UnsupportedError,
)
from runs import waiting_run

make: Any = Automation  # with arguments that a type checker refuses

EXCEPTIONS = {
    name: value
    for name, value in vars(automation).items()
    if isinstance(value, type) and issubclass(value, AutomationError) and value is not AutomationError
}


def test_each_exception_has_a_code_of_its_own() -> None:
    assert len({each.code for each in EXCEPTIONS.values()}) == len(EXCEPTIONS) == 18
    for name, each in EXCEPTIONS.items():
        words = each.code.title().replace("_", "")
        assert name == f"{words}Error"
        assert (each.__module__, each.__name__) == ("automation", name)
        assert each.__doc__


def test_builtins_catch_what_they_mean() -> None:
    also_value = {name for name, each in EXCEPTIONS.items() if issubclass(each, ValueError)}
    assert also_value == {"InvalidRequestError", "InvalidParametersError", "InvalidScriptError"}
    also_lookup = {name for name, each in EXCEPTIONS.items() if issubclass(each, LookupError)}
    assert also_lookup == {
        "ScriptNotFoundError",
        "NoScriptForCategoryError",
        "ExecutionNotFoundError",
        "TicketNotFoundError",
    }


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"storage": "mysql://me:hunter2@db.example/x"}, "/storage"),
        ({"storage": "automation.db"}, "/storage"),
        ({"storage": ""}, "/storage"),
        ({"workers": 0}, "/workers"),
        ({"workers": -1}, "/workers"),
        ({"executions_max": 0}, "/executions_max"),
        ({"queue_max": -1}, "/queue_max"),
        ({"secrets": {"a/b": "canary-1234"}}, "/secrets"),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, settings: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        Automation(folder, **settings)
    assert raised.value.problems[0]["pointer"] == pointer
    assert "hunter2" not in str(raised.value) and "canary-1234" not in str(raised.value)


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="nowhere.*No such file"):
        Automation(tmp_path / "nowhere")


def test_a_file_that_is_no_database(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("certainly not a database" * 100)
    with pytest.raises(StorageError, match=r"text\.db|not a database") as raised:
        Automation(folder, f"sqlite://{tmp_path}/text.db")
    assert raised.value.code == "storage"


def test_a_file_that_another_handle_uses(
    open_helpdesk: Callable[..., Automation], tmp_path: Path
) -> None:
    storage = f"sqlite://{tmp_path}/a.db"
    open_helpdesk(storage=storage)
    with pytest.raises(StorageError):
        open_helpdesk(storage=storage)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda helpdesk: helpdesk.execute("T-1", {}), "ticket"),
        (lambda helpdesk: helpdesk.execute({"id": "T"}, None), "classification"),
        (lambda helpdesk: helpdesk.execute({}, {}, actor=7), "actor"),
        (lambda helpdesk: helpdesk.route([], {}), "ticket"),
        (lambda helpdesk: helpdesk.manual(7), "script_name"),
        (lambda helpdesk: helpdesk.manual("hello.py", "{}"), "parameters"),
        (lambda helpdesk: helpdesk.manual("hello.py", ticket_id=7), "ticket_id"),
        (lambda helpdesk: helpdesk.manual("hello.py", dry_run="no"), "dry_run"),
        (lambda helpdesk: helpdesk.test(7), "script_name"),
        (lambda helpdesk: helpdesk.get(7), "id"),
        (lambda helpdesk: helpdesk.cancel(None), "id"),
        (lambda helpdesk: helpdesk.logs(7), "ticket_id"),
        (lambda helpdesk: helpdesk.logs("T", limit="1"), "limit"),
        (lambda helpdesk: helpdesk.logs("T", cursor=7), "cursor"),
        (lambda helpdesk: helpdesk.logs("T", statuses="failed"), "statuses"),
        (lambda helpdesk: helpdesk.stats(since="today"), "since"),
        (lambda helpdesk: helpdesk.stats(script_name=7), "script_name"),
        (lambda helpdesk: helpdesk.shutdown("soon"), "grace"),
        (lambda helpdesk: make(7), "scripts"),
        (lambda helpdesk: make("x", 7), "storage"),
        (lambda helpdesk: make("x", secrets=["a"]), "secrets"),
        (lambda helpdesk: make("x", secrets={"a": datetime.date.max}), "secrets"),
        (lambda helpdesk: make("x", workers="8"), "workers"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(
    helpdesk: Automation, call: Callable[[Automation], object], argument: str
) -> None:
    # Before Python 3.11 exceptions have no notes, and the argument's name is one.
    match = f"'{argument}'" if sys.version_info >= (3, 11) else None
    with pytest.raises(TypeError, match=match) as raised:
        call(helpdesk)
    assert "9999" not in str(raised.value)


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf"), 1e300])
def test_a_grace_is_seconds(helpdesk: Automation, grace: float) -> None:
    with pytest.raises(InvalidRequestError, match="/grace"):
        helpdesk.shutdown(grace)
    assert helpdesk.manual("hello.py").status == "completed"


def test_too_many_runs_are_refused(
    open_helpdesk: Callable[..., Automation], tmp_path: Path
) -> None:
    helpdesk = open_helpdesk(executions_max=1, queue_max=0)
    with waiting_run(helpdesk, tmp_path):
        with pytest.raises(OverloadedError, match="1 executions running") as raised:
            helpdesk.manual("hello.py")
        assert raised.value.retry_after == 1.0
        assert raised.value.code == "overloaded"


def test_isolation_can_be_left_out(
    open_helpdesk: Callable[..., Automation], folder: Path
) -> None:
    block = '# /// script\n# [tool.automation]\n# isolation = "process"\n# ///\n'
    (folder / "isolated.py").write_text(block + "print('{}')\n")
    with pytest.raises(UnsupportedError, match=r"isolated\.py"):
        open_helpdesk(isolated=False).manual("isolated.py")


def test_all_can_only_be_isolated_where_something_isolates(
    open_helpdesk: Callable[..., Automation],
) -> None:
    with pytest.raises(InvalidRequestError, match="isolate_all = True needs"):
        open_helpdesk(isolated=False, isolate_all=True)
    run = open_helpdesk(isolate_all=True).manual("hello.py")
    assert (run.status, run.isolation) == ("completed", "process")


def test_nothing_runs_after_the_shutdown(helpdesk: Automation) -> None:
    run = helpdesk.manual("hello.py", ticket_id="T-1")
    helpdesk.shutdown()
    helpdesk.shutdown()
    for call in (
        lambda: helpdesk.manual("hello.py"),
        lambda: helpdesk.get(run.id),
        lambda: helpdesk.logs("T-1"),
        lambda: helpdesk.stats(),
    ):
        with pytest.raises(ClosedError):
            call()
    health = helpdesk.check()
    assert (health["ready"], health["accepting"]) == (False, False)


def test_check_says_how_everything_is(helpdesk: Automation) -> None:
    health = helpdesk.check()
    assert (health["ready"], health["accepting"], health["storage_error"]) == (True, True, None)
    assert (health["running"], health["queued"]) == (0, 0)
    assert health["executor"]["version"].startswith("Python 3.")
    assert 1 <= health["executor"]["workers"] <= 2
