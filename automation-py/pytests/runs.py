"""Runs that last for as long as a test needs them, and programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Tuple

import automation
from automation import Automation, Execution

SECONDS_MAX = 20


def wait_for(path: Path) -> None:
    """Waits until a file appears."""
    deadline = time.monotonic() + SECONDS_MAX
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.005)


@contextmanager
def waiting_run(helpdesk: Automation, folder: Path) -> Iterator[Tuple[Execution, Future[Execution]]]:
    """Has a run that would wait for ever, and cancels it at the end. Gives it as it is now, and what its caller
    will be answered."""
    started = folder / "waiting"
    with ThreadPoolExecutor(1) as pool:
        parameters = {"started": str(started)}
        answer = pool.submit(helpdesk.manual, "waits.py", parameters, ticket_id="waiting")
        wait_for(started)
        [run] = helpdesk.logs("waiting")
        try:
            yield run, answer
        finally:
            helpdesk.cancel(run.id)
            answer.result(timeout=SECONDS_MAX)


def python(source: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program that can import the module."""
    packages = Path(automation.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=3 * SECONDS_MAX,
        env={**os.environ, "PYTHONPATH": str(packages)},
    )
