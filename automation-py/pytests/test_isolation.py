"""Scripts in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from automation import Automation

BLOCK = '# /// script\n# [tool.automation]\n# isolation = "process"\n# ///\n'


@pytest.fixture
def run(open_helpdesk: Callable[..., Automation], folder: Path) -> Callable[..., object]:
    def run(source: str, **parameters: object) -> object:
        (folder / "isolated.py").write_text(BLOCK + source)
        return open_helpdesk().manual("isolated.py", **parameters)

    return run


def test_a_script_has_a_process_of_its_own(run: Callable[..., object]) -> None:
    source = "import json, os, sys\nprint(json.dumps({'pid': os.getpid(), 'python': sys.executable}))\n"
    done = run(source)
    assert (done.status, done.failure) == ("completed", None)
    assert done.parsed_output["pid"] != os.getpid()
    assert done.parsed_output["python"] == sys.executable


def test_a_crash_is_its_own(run: Callable[..., object]) -> None:
    done = run("import ctypes\nctypes.string_at(0)\n")
    assert done.status == "failed"
    assert done.failure.message == "killed by signal 11 (SIGSEGV)"


def test_modules_are_found_where_the_host_finds_them(
    run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_on_the_hosts_path.py").write_text("VALUE = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = run("import only_on_the_hosts_path as m\nprint(m.VALUE)\n")
    assert done.output == "42\n"


def test_the_context_is_there(run: Callable[..., object]) -> None:
    source = "from automation import ctx\nctx.log('a line')\nprint(ctx.dry_run, ctx.cancelled, ctx.remaining() > 0)\n"
    assert run(source).output == "False False True\n"


def test_health_shows_it(open_helpdesk: Callable[..., Automation]) -> None:
    health = open_helpdesk().check()["isolated_executor"]
    assert (health["available"], health["details"]["zygote"]) == (True, False)
    assert open_helpdesk(isolated=False).check()["isolated_executor"] is None


def test_another_program_is_not_started(
    open_helpdesk: Callable[..., Automation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/blender")
    assert open_helpdesk().check()["isolated_executor"] is None


def test_the_zygote_can_be_started_by_hand() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, subprocess.Popen([sys.executable, "-m", "automation._zygote"], stdin=theirs) as zygote:
        theirs.close()
        ours.send(b"\x03{}")
        said = json.loads(ours.recv(60001)[1:])
        assert said["executable"] == sys.executable
        ours.close()
        assert zygote.wait(10) == 0
    done = subprocess.run(
        [sys.executable, "-m", "automation._zygote"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "is no socket" in done.stderr) == (1, True)
