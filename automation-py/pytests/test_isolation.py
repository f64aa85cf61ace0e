"""Scripts in processes of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from automation import Automation

BLOCK = '# /// script\n# [tool.automation]\n# isolation = "process"\n{}# ///\n'


@pytest.fixture
def run(open_helpdesk: Callable[..., Automation], folder: Path) -> Callable[..., object]:
    def run(source: str, *metadata: str, **settings: object) -> object:
        block = BLOCK.format("".join(f"# {line}\n" for line in metadata))
        (folder / "isolated.py").write_text(block + source)
        done = open_helpdesk(**settings).manual("isolated.py")
        assert done.isolation == "process"
        return done

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


def test_the_context_has_all_that_it_has_in_the_process(run: Callable[..., object]) -> None:
    source = """
from automation import ctx
ctx.progress(0.5, "half")
done = ctx.run_cmd(["sh", "-c", "cat; echo error >&2"], input="in")
print(done.stdout, done.stderr.strip(), ctx.secret("token"))
ctx.run_cmd(["false"])
"""
    done = run(source, secrets={"token": "s3cret-token"})
    assert done.output == "in error ***\n"
    assert done.failure.message == "automation.CommandFailed: false ended with exit code 1 and wrote no error"
    assert done.children == 2


def test_what_is_denied_does_not_happen(run: Callable[..., object], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("x")
    done = run(f"import os\nos.remove({str(kept)!r})\n", 'deny = ["write"]')
    assert done.failure.message.startswith(f"PermissionError: [Errno 1] write is denied ({kept})")
    assert kept.read_text() == "x"
    done = run("import os\nos.system('true')\nos.system('true')\n", "children_max = 1")
    assert "children_max = 1" in done.failure.message


def test_a_deadline_ends_what_nothing_ends_in_the_process(run: Callable[..., object]) -> None:
    done = run("print('begun', flush=True)\nsum(range(10**12))\n", "timeout_seconds = 0.3")
    assert (done.status, done.failure.reason) == ("failed", "timeout")
    assert (done.still_running, done.output) == (False, "begun\n")
    assert done.duration < 5


def test_memory_is_limited(run: Callable[..., object]) -> None:
    done = run("x = bytearray(1 << 30)\n", "memory_mb = 64")
    assert (done.status, done.failure.reason) == ("failed", "memory_limit")


def test_health_shows_it(open_helpdesk: Callable[..., Automation]) -> None:
    health = open_helpdesk().check()["isolated_executor"]
    assert (health["available"], health["details"]["zygote"]) == (True, False)
    assert open_helpdesk(isolated=False).check()["isolated_executor"] is None


def test_another_program_is_not_started(
    open_helpdesk: Callable[..., Automation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/blender")
    assert open_helpdesk().check()["isolated_executor"] is None


def message(of: socket.socket) -> dict[str, Any]:
    return json.loads(of.recv(60001)[1:])


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def order(source: str) -> bytes:
    told = {
        "do": "run",
        "argv": ["/absent/by_hand.py", "{}"],
        "source": source,
        "entry": "plain",
        "execution_id": "1",
        "dry_run": False,
        "deny": ["write"],
        "limits": {"cpu_seconds": None, "memory_bytes": 1 << 28, "children_max": None},
        **dict.fromkeys(("code", "folder", "parameters", "ticket", "classification", "deadline")),
    }
    return b"\x03" + json.dumps(told).encode()


def test_the_zygote_can_be_started_by_hand() -> None:
    """Another program may speak to it as the executor does; scripts see no frames of ours there either."""
    source = "from automation import ctx\ntry:\n    ctx.run_cmd('ls')\nexcept TypeError:\n    open('/absent/x', 'w')\n"
    ours, theirs = pair()
    with subprocess.Popen([sys.executable, "-m", "automation._zygote"], stdin=theirs) as zygote, ours:
        theirs.close()
        ours.send(b"\x03{}")
        assert message(ours)["executable"] == sys.executable
        (control, control_theirs), (warden, warden_theirs) = pair(), pair()
        (stdout, stdout_theirs), (stderr, stderr_theirs) = os.pipe(), os.pipe()
        wires = [stdout_theirs, stderr_theirs, control_theirs.detach(), warden_theirs.detach()]
        socket.send_fds(ours, [b"f"], wires)
        for wire in wires:
            os.close(wire)
        with control, warden, open(stdout), open(stderr) as errors:
            control.send(order(source))
            assert message(control)["tell"] == "code"
            assert message(control) == {"tell": "effect", "effect": "write", "target": "/absent/x", "denied": True}
            assert message(control)["exit"] == 1
            assert "pid" in message(warden)
            assert message(warden)["code"] == 1
            shown = errors.read()
        files = {line.split('"')[1] for line in shown.splitlines() if line.startswith("  File")}
        assert files == {"/absent/by_hand.py"}
        ours.close()
        assert zygote.wait(10) == 0


@pytest.mark.parametrize("stdin", [subprocess.DEVNULL, None])
def test_without_its_socket_it_says_so(stdin: int | None, tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+") as file:
        done = subprocess.run(
            [sys.executable, "-m", "automation._zygote"],
            stdin=file if stdin is None else stdin,
            capture_output=True,
            text=True,
            check=False,
        )
    sentence = "automation._zygote is started by an executor: its standard input is no socket\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)
