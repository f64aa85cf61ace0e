"""What runs may not do stays possible for the program that imports the module."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from automation import Automation
from runs import python

HOST = """
import faulthandler, inspect, io, os, pathlib, resource, signal, subprocess, sys, threading
from automation import Automation

folder = pathlib.Path(sys.argv[1])
(folder / "plain.py").write_text("print('ran')")
helpdesk = Automation(folder)
assert helpdesk.manual("plain.py").output == "ran\\n"

heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append("handler"))
os.kill(os.getpid(), signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR1)
signal.alarm(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [])
resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))
faulthandler.enable()
assert faulthandler.is_enabled()
faulthandler.dump_traceback_later(1000)
faulthandler.cancel_dump_traceback_later()
sys.setswitchinterval(sys.getswitchinterval())
sys.setrecursionlimit(123_456)
assert sys.getrecursionlimit() == 123_456
sys.setrecursionlimit(1000)
assert threading.stack_size(1 << 20) == 0 and threading.stack_size(0) == 1 << 20
sys.addaudithook(lambda event, _: heard.append(event) if event == "os.chdir" else None)
os.nice(0)
os.closerange(900, 901)
os.chdir("/")
old = os.umask(0o027)
assert os.umask(old) == 0o027 and os.getcwd() == "/"
reader, writer = os.pipe()
saved = os.dup(1)
os.dup2(writer, 1)
os.write(1, b"number ")
subprocess.run(["echo", "child"])
os.system("echo shell")
open(1, "w", closefd=False).write("file")
os.dup2(saved, 1)
assert os.read(reader, 100) == b"number child\\nshell\\nfile", "the host's output is its own"
assert str(inspect.signature(os.dup2)) == "(fd, fd2, inheritable=True)"
assert heard == ["handler", "handler", "os.chdir"], heard
assert helpdesk.manual("plain.py").output == "ran\\n"
if not os.fork():
    os._exit(7)
assert os.wait()[1] >> 8 == 7
os._exit(5)
"""


DEAF = """
import sys
from automation import Automation

def objects(event, arguments):
    if event == "sys.addaudithook":
        raise RuntimeError

sys.addaudithook(objects)
helpdesk = Automation(sys.argv[1])
assert "neither recorded nor denied" in helpdesk.check()["executor"]["details"]["warning"]
"""


def test_a_host_that_objects_to_audit_hooks_is_told_what_that_costs(tmp_path: Path) -> None:
    done = python(DEAF, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="some of these functions are Linux's")
def test_a_host_does_what_it_did(tmp_path: Path) -> None:
    done = python(HOST, tmp_path)
    assert done.returncode == 5, done.stderr


def test_runs_leave_the_host_where_it_is(open_helpdesk: Callable[..., Automation], folder: Path) -> None:
    source = "import os\nos.chdir('/')\nos.umask(0o777)\nprint(os.getcwd())\nos._exit(3)"
    (folder / "moves.py").write_text(source)
    here = os.getcwd()
    helpdesk = open_helpdesk()
    run: Any = helpdesk.manual("moves.py")
    assert run.output == "/\n" and run.exit_code == 3
    assert os.getcwd() == here
    assert helpdesk.check()["executor"]["details"]["working_directory"] == "each run's own"
