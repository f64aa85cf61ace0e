"""`stats`: what was counted."""

from __future__ import annotations

import datetime
import json

import pytest

from automation import Automation, ScriptStats, Stats


def test_nothing_ran(helpdesk: Automation) -> None:
    stats = helpdesk.stats()
    assert (stats.total, stats.success_rate, stats.avg_duration, stats.p50) == (0, 0.0, 0.0, None)
    assert (stats.by_script, stats.recent, stats.open) == ({}, (), 0)


def test_all_and_each(helpdesk: Automation) -> None:
    runs = [helpdesk.manual(name) for name in ("hello.py", "hello.py", "hello.py", "exits.py")]
    stats = helpdesk.stats()
    assert (stats.total, stats.successful, stats.failed, stats.cancelled) == (4, 3, 1, 0)
    assert stats.success_rate == 75.0
    assert stats.duration == pytest.approx(sum(run.duration or 0 for run in runs))
    assert stats.avg_duration == pytest.approx(stats.duration / 4)
    assert stats.p99 is not None and stats.p50 is not None
    assert stats.queue_time == pytest.approx(sum(run.queue_time or 0 for run in runs))
    assert stats.avg_queue_time == pytest.approx(stats.queue_time / 4)
    assert stats.output_bytes == sum(run.output_bytes for run in runs) > 0
    assert stats.children == sum(run.children or 0 for run in runs)
    assert stats.threads == sum(run.threads or 0 for run in runs)
    assert max(run.duration or 0 for run in runs) <= stats.p99
    assert 0 < stats.p50 <= (stats.p90 or 0) <= (stats.p95 or 0) <= stats.p99
    assert {name: each.total for name, each in stats.by_script.items()} == {
        "exits.py": 1,
        "hello.py": 3,
    }
    assert [run.id for run in stats.recent] == [run.id for run in reversed(runs)]
    assert all(run.output == "" for run in stats.recent)


def test_one_script(helpdesk: Automation) -> None:
    helpdesk.manual("hello.py")
    helpdesk.manual("exits.py")
    stats = helpdesk.stats(script_name="exits.py")
    assert (stats.total, stats.failed, list(stats.by_script)) == (1, 1, ["exits.py"])


def test_since_a_day(helpdesk: Automation) -> None:
    helpdesk.manual("hello.py")
    today = datetime.datetime.now(datetime.timezone.utc).date()
    assert helpdesk.stats(since=today - datetime.timedelta(days=1)).total == 1
    assert helpdesk.stats(since=today + datetime.timedelta(days=2)).total == 0


@pytest.mark.parametrize("since", ["2026-01-31", 7, datetime.datetime(2026, 1, 31)])
def test_since_is_a_day(helpdesk: Automation, since: object) -> None:
    with pytest.raises(TypeError, match=f"'since': .*date.* got {type(since).__name__}"):
        helpdesk.stats(since=since)  # type: ignore[arg-type]


def test_statistics_are_values(helpdesk: Automation) -> None:
    helpdesk.manual("hello.py")
    stats = helpdesk.stats()
    assert isinstance(stats, Stats) and isinstance(stats, ScriptStats)
    assert stats == helpdesk.stats()
    assert stats.by_script["hello.py"] == helpdesk.stats().by_script["hello.py"]
    assert repr(stats) == "Stats(total=1, successful=1, failed=0, cancelled=0)"
    assert repr(stats.by_script["hello.py"]).startswith("ScriptStats(total=1,")
    helpdesk.manual("hello.py")
    assert stats != helpdesk.stats()


def test_statistics_become_json(helpdesk: Automation) -> None:
    helpdesk.manual("hello.py")
    stats = helpdesk.stats()
    fields = json.loads(json.dumps(stats.to_dict()))
    properties = {name for name in dir(stats) if not name.startswith("_")}
    assert set(fields) == properties - {"to_dict"}
    assert fields["by_script"]["hello.py"]["total"] == 1
    assert fields["recent"][0]["script_name"] == "hello.py"
