"""The policy, people's stops and overrides, and quotas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from automation import (
    Automation,
    AutomationNotPossibleError,
    ConflictError,
    InvalidRequestError,
    QuotaExceededError,
    RefusedByPolicyError,
    ScriptNotFoundError,
    StoppedError,
)

Open = Callable[..., Automation]


def category_of(helpdesk: Automation) -> tuple[str, str]:
    """A script that a category selects."""
    script = next(script for script in helpdesk.scripts() if script.category)
    assert script.category
    return script.name, script.category


def sure(category: str, confidence: float) -> dict[str, Any]:
    return {"category": category, "automation_possible": True, "confidence": confidence}


def test_the_decision_is_asked_for_and_recorded(open_helpdesk: Open) -> None:
    helpdesk = open_helpdesk(policy={"confidence_min": 0.7}, workers=1)
    name, category = category_of(helpdesk)
    route = helpdesk.route({"id": "T-1"}, sure(category, 0.7))
    assert route.script_name == name
    assert route.reason.endswith("; confidence 0.7 is at least 0.7")
    assert (route.priority, route.needs_approval, route.fallbacks) == (0, False, [])
    with pytest.raises(AutomationNotPossibleError, match="below the policy's 0.7"):
        helpdesk.route({"id": "T-1"}, sure(category, 0.6))


def test_a_script_that_is_disabled_runs_by_force_only(open_helpdesk: Open) -> None:
    rules = {"scripts": {"hello.py": {"enabled": False, "reason": "not now"}}}
    helpdesk = open_helpdesk(policy=rules, workers=1)
    with pytest.raises(RefusedByPolicyError, match="disabled by the policy: not now") as refused:
        helpdesk.manual("hello.py")
    assert (refused.value.code, refused.value.retry_after) == ("refused_by_policy", None)
    with pytest.raises(InvalidRequestError):
        helpdesk.manual("hello.py", override_reason="now")
    run = helpdesk.manual("hello.py", override_reason="now", actor="jdoe")
    assert (run.status, run.decision) == ("completed", "forced against the policy by jdoe: now")
    assert run.to_dict()["decision"] == run.decision
    forced = {"override_reason": "by phone", "override_script": "hello.py", "actor": "jdoe"}
    run = helpdesk.execute({"id": "T-1"}, {"category": "Coffee", "automation_possible": False}, **forced)
    assert run.script_name == "hello.py"


def test_a_stop_says_who_and_holds_until_it_is_resumed(open_helpdesk: Open) -> None:
    helpdesk = open_helpdesk(workers=1)
    stop = helpdesk.stop("jdoe", "a bad patch", script="hello.py")
    assert (stop.scope, stop.name, stop.actor, stop.reason) == ("script", "hello.py", "jdoe", "a bad patch")
    assert helpdesk.stopped() == [stop]
    assert helpdesk.check()["stopped"][0]["actor"] == "jdoe"
    json.dumps(stop.to_dict())
    with pytest.raises(StoppedError, match="stopped by jdoe at .*: a bad patch"):
        helpdesk.manual("hello.py")
    assert helpdesk.resume("jdoe", "fixed", script="hello.py") == stop
    assert helpdesk.manual("hello.py").status == "completed"
    helpdesk.stop("jdoe", "everything")
    with pytest.raises(StoppedError):
        helpdesk.manual("hello.py")
    helpdesk.resume("jdoe", "go on")
    with pytest.raises(ConflictError):
        helpdesk.resume("jdoe", "go on")
    with pytest.raises(ScriptNotFoundError):
        helpdesk.stop("jdoe", "x", script="helo.py")
    with pytest.raises(InvalidRequestError):
        helpdesk.stop("jdoe", "x", script="hello.py", category="x")


def test_a_quota_says_when_it_frees(open_helpdesk: Open) -> None:
    helpdesk = open_helpdesk(policy={"quotas": [{"per": "actor", "runs": 1, "window_seconds": 3600}]}, workers=1)
    helpdesk.manual("hello.py", actor="a")
    with pytest.raises(QuotaExceededError, match="quota per actor: 1 in 3600 seconds") as refused:
        helpdesk.manual("hello.py", actor="a")
    assert refused.value.retry_after and 3590 < refused.value.retry_after <= 3600
    helpdesk.manual("hello.py", actor="b")


def test_a_policy_file_is_read_again_with_the_scripts(open_helpdesk: Open, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[scripts."hello.py"]\nenabled = false\n')
    helpdesk = open_helpdesk(policy=file, workers=1)
    with pytest.raises(RefusedByPolicyError):
        helpdesk.manual("hello.py")
    file.write_text("")
    helpdesk.reload()
    assert helpdesk.manual("hello.py").status == "completed"


def test_a_wrong_policy_is_named(open_helpdesk: Open) -> None:
    with pytest.raises(InvalidRequestError, match="unknown field `confidence_mim`"):
        open_helpdesk(policy={"confidence_mim": 0.7})
    with pytest.raises(TypeError):
        open_helpdesk(policy=7)
