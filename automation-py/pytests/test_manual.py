"""`manual`, `test`, `get` and `cancel`: a script by its name."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import pytest

from automation import (
    Automation,
    ExecutionNotFoundError,
    InvalidParametersError,
    InvalidRequestError,
    InvalidScriptError,
    ScriptFailedError,
    ScriptNotFoundError,
    UnsupportedError,
)
from runs import waiting_run


def test_parameters_and_ticket(helpdesk: Automation) -> None:
    run = helpdesk.manual("hello.py", {"name": "Zoë"}, ticket_id="T-7", actor="ana")
    assert (run.status, run.trigger, run.ticket_id) == ("completed", "manual", "T-7")
    assert (run.actor, run.dry_run, run.exit_code) == ("ana", False, 0)
    assert run.parsed_output == {"hello": "Zoë"}


def test_without_a_ticket_the_run_is_its_own(helpdesk: Automation) -> None:
    run = helpdesk.manual("hello.py")
    assert run.ticket_id == run.id
    assert uuid.UUID(run.id).version == 7


def test_a_dry_run_says_so(helpdesk: Automation) -> None:
    run = helpdesk.manual("hello.py", dry_run=True)
    assert run.dry_run and run.parameters["dry_run"] is True
    with pytest.raises(UnsupportedError, match="raises.py"):
        helpdesk.manual("raises.py", dry_run=True)


def test_test_is_a_dry_run_that_is_not_counted(helpdesk: Automation) -> None:
    for run in (helpdesk.test(), helpdesk.test("hello.py", actor="ana")):
        assert (run.script_name, run.trigger, run.dry_run) == ("hello.py", "test", True)
    assert helpdesk.stats().total == 0


def test_an_exception_is_a_failed_run(helpdesk: Automation) -> None:
    run = helpdesk.manual("raises.py")
    assert (run.status, run.success, run.reason, run.exit_code) == ("failed", False, "exception", 1)
    assert run.failure is not None
    assert run.failure.reason == "exception"
    assert str(run.failure) == run.failure.message == run.error == "ValueError: no such printer"
    assert run.output == "a line\n"
    assert "a warning" in run.stderr and "ValueError: no such printer" in run.stderr
    assert "reason='exception'" in repr(run)


def test_an_exit_code_is_a_failed_run(helpdesk: Automation) -> None:
    run = helpdesk.manual("exits.py")
    assert (run.status, run.reason, run.exit_code) == ("failed", "exit_code", 3)
    assert (run.output, run.parsed_output) == ("half done\n", None)


def test_raise_for_status(helpdesk: Automation) -> None:
    completed = helpdesk.manual("hello.py")
    assert completed.raise_for_status() is completed
    failed = helpdesk.manual("exits.py")
    with pytest.raises(ScriptFailedError, match=r"exits\.py failed: .*3") as raised:
        failed.raise_for_status()
    assert raised.value.execution is failed
    assert raised.value.code == "script_failed"


def test_a_timeout_is_a_failed_run(folder: Path, open_helpdesk: Callable[..., Automation]) -> None:
    block = "# /// script\n# [tool.automation]\n# timeout_seconds = 0.2\n# ///\n"
    (folder / "late.py").write_text(block + "while True: pass\n")
    run = open_helpdesk(workers=1).manual("late.py")
    assert (run.status, run.reason, run.still_running) == ("failed", "timeout", False)
    assert run.duration is not None and 0.2 <= run.duration < 2


def test_an_unknown_script(helpdesk: Automation) -> None:
    for name in ("absent.py", "../scripts/hello.py", "", "HELLO.py"):
        with pytest.raises(ScriptNotFoundError) as raised:
            helpdesk.manual(name)
        assert isinstance(raised.value, LookupError)
        assert raised.value.code == "script_not_found"


def test_an_invalid_script_says_where(helpdesk: Automation) -> None:
    with pytest.raises(InvalidScriptError, match=r"broken\.py:1") as raised:
        helpdesk.manual("broken.py")
    assert isinstance(raised.value, ValueError)
    assert "broken.py:1" in raised.value.problems[0]["detail"]


def test_wrong_parameters_are_named(helpdesk: Automation) -> None:
    with pytest.raises(InvalidParametersError, match=r"hello\.py") as raised:
        helpdesk.manual("hello.py", {"name": 7, "volume": 11})
    pointers = [problem["pointer"] for problem in raised.value.problems]
    assert pointers == ["/name", "/volume"]
    assert isinstance(raised.value, ValueError)


def test_what_json_does_not_have_is_a_wrong_parameter(helpdesk: Automation) -> None:
    with pytest.raises(InvalidParametersError, match=r"hello\.py") as raised:
        helpdesk.manual("hello.py", {"name": {"first": b"Zoe"}})
    assert [problem["pointer"] for problem in raised.value.problems] == ["/name/first"]


def test_get(helpdesk: Automation) -> None:
    run = helpdesk.manual("hello.py")
    assert helpdesk.get(run.id) == run
    with pytest.raises(ExecutionNotFoundError) as raised:
        helpdesk.get(str(uuid.uuid4()))
    assert isinstance(raised.value, LookupError)
    with pytest.raises(InvalidRequestError, match="/id"):
        helpdesk.get("T-1")


def test_cancel_ends_a_run(helpdesk: Automation, tmp_path: Path) -> None:
    with waiting_run(helpdesk, tmp_path) as (running, answer):
        assert (running.status, running.success, running.duration) == ("running", None, None)
        assert running.raise_for_status() is running
        cancelled = helpdesk.cancel(running.id, actor="ana")
        assert answer.result(timeout=20) == cancelled
    assert (cancelled.status, cancelled.reason) == ("cancelled", "cancelled_by_request")
    assert cancelled.failure is None
    with pytest.raises(ScriptFailedError, match=r"waits\.py cancelled"):
        cancelled.raise_for_status()
    assert helpdesk.cancel(cancelled.id) == cancelled


def test_secrets_reach_the_script_and_nothing_else(open_helpdesk: Callable[..., Automation]) -> None:
    run = open_helpdesk(secrets={"TOKEN": "canary-1234"}).manual("secret.py")
    assert run.status == "completed"
    assert "the token is" in run.output
    assert "canary-1234" not in str(run.to_dict())
    assert open_helpdesk().manual("secret.py").reason == "exception"


def test_runs_do_not_see_each_other(helpdesk: Automation) -> None:
    names = [f"name-{number}" for number in range(40)]
    barrier = threading.Barrier(8)

    def greet(index: int) -> str:
        if index < 8:
            barrier.wait()
        run = helpdesk.manual("hello.py", {"name": names[index]})
        assert run.parsed_output is not None
        return str(run.parsed_output["hello"])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(greet, range(len(names)))) == names
