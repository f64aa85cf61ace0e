"""Threads, signals, processes and the end of the interpreter."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest

from automation import Automation
from runs import python, wait_for, waiting_run


# Python 3.12 and later warn of what is tested here.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_a_wait_leaves_the_others_running(helpdesk: Automation, tmp_path: Path) -> None:
    with waiting_run(helpdesk, tmp_path):
        turns = 0
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            turns += 1
        assert turns > 1000
        assert helpdesk.manual("hello.py").status == "completed"


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Lets Ctrl-C interrupt: a shell lets the programs that it starts in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_interrupts_the_wait_and_not_the_run(
    helpdesk: Automation, tmp_path: Path
) -> None:
    started = tmp_path / "started"

    def interrupt() -> None:
        wait_for(started)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            helpdesk.manual("waits.py", {"started": str(started)}, ticket_id="T-1")
        interrupted = time.monotonic()
    finally:
        thread.join()
    [run] = helpdesk.logs("T-1")
    assert run.status == "running"
    assert helpdesk.cancel(run.id).status == "cancelled"
    assert time.monotonic() - interrupted < 5


def test_who_leaves_by_ctrl_c_does_not_wait(folder: Path, tmp_path: Path) -> None:
    started, database = tmp_path / "started", tmp_path / "a.db"
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        with Automation(folder, f"sqlite://{database}", workers=1) as helpdesk:
            argument = {"started": str(started)}
            threading.Thread(target=helpdesk.manual, args=("waits.py", argument), daemon=True).start()
            wait_for(started)
            raise KeyboardInterrupt
    assert time.monotonic() - began < 10
    with Automation(folder, f"sqlite://{database}", workers=1) as helpdesk:
        [run] = helpdesk.stats().recent
        assert (run.script_name, run.reason) == ("waits.py", "shutdown")


def test_the_end_of_the_block_waits_for_runs(folder: Path, tmp_path: Path) -> None:
    slow = "import pathlib, sys, time\npathlib.Path({!r}).touch()\ntime.sleep(0.3)\nprint('{{}}')\n"
    (folder / "slow.py").write_text(slow.format(str(tmp_path / "started")))
    runs = []
    with Automation(folder, workers=1) as helpdesk:
        thread = threading.Thread(target=lambda: runs.append(helpdesk.manual("slow.py")))
        thread.start()
        wait_for(tmp_path / "started")
    thread.join()
    assert runs[0].status == "completed"


def test_a_forgotten_handle_lets_its_file_go(folder: Path, tmp_path: Path) -> None:
    storage = f"sqlite://{tmp_path}/a.db"
    helpdesk = Automation(folder, storage, workers=1)
    run = helpdesk.manual("hello.py", ticket_id="T-1")
    del helpdesk
    gc.collect()
    deadline = time.monotonic() + 20
    while True:
        try:
            with Automation(folder, storage, workers=1) as helpdesk:
                assert list(helpdesk.logs("T-1")) == [run]
            break
        except AssertionError:
            raise
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_interpreter_ends_while_scripts_run(folder: Path, tmp_path: Path) -> None:
    done = python(
        """
        import pathlib, sys, threading, time
        from automation import Automation

        folder, started = sys.argv[1:]
        helpdesk = Automation(folder, workers=2)
        waits = threading.Thread(target=helpdesk.manual, args=("waits.py", {"started": started}), daemon=True)
        waits.start()
        while not pathlib.Path(started).exists():
            time.sleep(0.01)
        print("end of the program")
        """,
        folder,
        tmp_path / "started",
    )
    assert (done.returncode, done.stdout) == (0, "end of the program\n"), done.stderr


def in_child(work: Callable[[], str]) -> str:
    """Returns what `work` returns, or raises, in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = repr(error)
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return answer


@forks
def test_a_forked_child_can_not_use_its_parents_handle(helpdesk: Automation) -> None:
    answer = in_child(lambda: helpdesk.manual("hello.py").status)
    assert answer.startswith("UnsupportedError(") and "forked" in answer
    assert helpdesk.manual("hello.py").status == "completed"


@forks
def test_a_fork_with_an_open_handle_is_refused_another(helpdesk: Automation, folder: Path) -> None:
    for _ in range(2):
        answer = in_child(lambda: repr(Automation(folder)))
        assert answer.startswith("UnsupportedError(") and "shut it down before the fork" in answer
    assert Automation(folder, workers=1).manual("hello.py").status == "completed"


def test_after_a_shutdown_a_fork_may_have_a_handle(folder: Path) -> None:
    done = python(
        """
        import os, sys, warnings
        from automation import Automation

        warnings.simplefilter("ignore")

        def run():
            with Automation(sys.argv[1], workers=1) as helpdesk:
                assert helpdesk.manual("hello.py").status == "completed"

        run()
        for _ in range(3):
            child = os.fork()
            if child == 0:
                run()
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        run()
        """,
        folder,
    )
    assert done.returncode == 0, done.stderr


def test_two_handles_share_nothing(
    open_helpdesk: Callable[..., Automation],
) -> None:
    first, second = open_helpdesk(workers=1), open_helpdesk(workers=1)
    first.manual("hello.py")
    assert (first.stats().total, second.stats().total) == (1, 0)
    first.shutdown()
    assert second.manual("hello.py").status == "completed"


@pytest.mark.parametrize(
    "script",
    [
        "import threading, time\ndef f():\n    while True: time.sleep(0.001)\n"
        "threading.Thread(target=f, daemon=True).start()\n",
        "import threading, time\ndef f():\n    while True: print('x', flush=True); time.sleep(0)\n"
        "threading.Thread(target=f, daemon=True).start()\n",
        "import time\nwhile True:\n    try:\n        while True: time.sleep(0.001)\n    except BaseException: pass\n",
        "import atexit, time\n@atexit.register\ndef f():\n    while True:\n        try: time.sleep(0.001)\n"
        "        except BaseException: pass\n",
    ],
)
def test_what_a_script_left_running_does_not_bring_the_program_down(tmp_path: Path, script: str) -> None:
    metadata = "# /// script\n# [tool.automation]\n# timeout_seconds = 1\n# ///\n"
    (tmp_path / "leaves.py").write_text(metadata + script)
    source = """
        import sys
        from automation import Automation
        with Automation(sys.argv[1], workers=1) as helpdesk:
            print(helpdesk.manual("leaves.py").status)
    """
    for _ in range(3):
        ended = python(source, tmp_path)
        assert ended.returncode == 0, ended.stderr
