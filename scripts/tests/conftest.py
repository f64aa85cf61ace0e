"""How the tests start a script: by hand, and through the executor. Nothing here touches real folders."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent
FAKE_CONTEXT = Path(__file__).resolve().parent / "fake_context"
SECONDS_MAX = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--by-hand-only", action="store_true", help="leave out the runs through the executor")
    parser.addoption("--no-ldap", action="store_true", help="leave out the tests that need slapd")
    parser.addoption("--no-mounts", action="store_true", help="leave out the tests that mount a folder")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    ways = ["by_hand"] if metafunc.config.getoption("--by-hand-only") else ["by_hand", "executor"]
    for fixture in ("run_script", "run_ticket"):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, ways, indirect=True)


@dataclass
class Run:
    """What a test may look at, whichever way the script ran."""

    way: str
    exit_code: int
    result: dict[str, Any]
    everything: str = field(repr=False)  # all text that left the script

    @property
    def error_code(self) -> str:
        return self.result["error"]["code"]


def run_by_hand(
    name: str,
    parameters: Any,
    secrets: dict[str, str],
    context: dict[str, Any] | None = None,
    prefix: tuple[str, ...] = (),
) -> Run:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    environment.update({f"AUTOMATION_SECRET_{key.upper()}": value for key, value in secrets.items()})
    if context is not None:
        environment["PYTHONPATH"] = str(FAKE_CONTEXT)
        environment["AUTOMATION_TEST_CONTEXT"] = json.dumps(context)
    arguments = (
        [] if parameters is None else [parameters if isinstance(parameters, str) else json.dumps(parameters)]
    )
    done = subprocess.run(
        [*prefix, sys.executable, str(SCRIPTS / name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    try:
        result = json.loads(done.stdout)
    except ValueError:
        pytest.fail(f"stdout is not one JSON value: {done.stdout!r}, stderr: {done.stderr}")
    assert "Traceback" not in done.stderr, done.stderr
    assert result["success"] is (done.returncode == 0)
    return Run("by_hand", done.returncode, result, done.stdout + done.stderr)


# --- The one place that knows the executor's interface --------------------------------------------


def run_in_executor(call: Callable[[Any], Any], secrets: dict[str, str]) -> Run:
    """Runs `call` with the importable module; its absence fails the test."""
    from automation import Automation, InvalidParametersError

    with Automation(scripts=str(SCRIPTS), storage="memory:", secrets=secrets) as automation:
        try:
            run = call(automation)
        except InvalidParametersError as error:
            refusal = {"success": False, "error": {"code": "invalid_parameters", "message": str(error)}}
            return Run("executor", 2, refusal, str(error))
        everything = "\n".join([str(run.output), json.dumps(run.parsed_output), str(run.failure), repr(run)])
        assert run.status == ("completed" if run.exit_code == 0 else "failed"), everything
        assert isinstance(run.parsed_output, dict), everything
        return Run("executor", run.exit_code, run.parsed_output, everything)


@pytest.fixture
def run_script(request: pytest.FixtureRequest, sandbox: Sandbox) -> Callable[..., Run]:
    """Runs a script with parameters and secrets, once for each way."""

    def by_hand(
        name: str, parameters: dict[str, Any] | None = None, secrets: dict[str, str] | None = None
    ) -> Run:
        return run_by_hand(name, parameters or {}, secrets or {})

    def executor(
        name: str, parameters: dict[str, Any] | None = None, secrets: dict[str, str] | None = None
    ) -> Run:
        return run_in_executor(lambda automation: automation.manual(name, parameters or {}), secrets or {})

    return {"by_hand": by_hand, "executor": executor}[request.param]


CATEGORIES = {
    "Device Slow": "disk_cleanup.py",
    "VPN Issue": "vpn_restart.py",
    "Password Reset": "password_reset.py",
}


@pytest.fixture
def run_ticket(request: pytest.FixtureRequest, sandbox: Sandbox) -> Callable[..., Run]:
    """Runs the script of a category for a ticket; by hand with a context that holds the ticket."""

    def by_hand(ticket: dict[str, Any], category: str, secrets: dict[str, str] | None = None) -> Run:
        return run_by_hand(CATEGORIES[category], {}, secrets or {}, {"ticket": ticket})

    def executor(ticket: dict[str, Any], category: str, secrets: dict[str, str] | None = None) -> Run:
        classification = {"category": category, "automation_possible": True, "confidence": 0.95}
        return run_in_executor(
            lambda automation: automation.execute(ticket=ticket, classification=classification), secrets or {}
        )

    return {"by_hand": by_hand, "executor": executor}[request.param]


@pytest.fixture
def run_with_context(sandbox: Sandbox) -> Callable[..., Run]:
    """Runs a script by hand with a context of the test's making."""

    def run(name: str, parameters: dict[str, Any], context: dict[str, Any], **secrets: str) -> Run:
        return run_by_hand(name, parameters, secrets, context)

    return run


# --- A world of its own for each test -------------------------------------------------------------


@dataclass
class Sandbox:
    """Folders and a PATH that stand in for the system's."""

    root: Path
    temp: Path
    home: Path
    log: Path
    bin: Path
    monkeypatch: pytest.MonkeyPatch

    def setting(self, **values: str) -> None:
        for name, value in values.items():
            self.monkeypatch.setenv(f"AUTOMATION_SETTING_{name.upper()}", value)

    def program(self, name: str, body: str = "") -> Path:
        """Puts a program on PATH that records how it was called before it does what `body` says."""
        calls = self.root / f"{name}.calls"
        source = textwrap.dedent(
            """\
            #!{python} -IS
            import json, os, sys
            typed = "" if {keeps_stdin} else sys.stdin.read()
            with open({calls!r}, "a") as file:
                json.dump({{"argv": sys.argv[1:], "stdin": typed, "env": dict(os.environ)}}, file)
                file.write("\\n")
            """
        ).format(python=sys.executable, calls=str(calls), keeps_stdin="execv" in body)
        path = self.bin / name
        path.write_text(source + textwrap.dedent(body))
        path.chmod(0o755)
        return path

    def calls(self, name: str) -> list[dict[str, Any]]:
        calls = self.root / f"{name}.calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    def argvs(self, name: str) -> list[list[str]]:
        return [call["argv"] for call in self.calls(name)]

    def all_calls(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.root.glob("*.calls")))


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Points every root that a script may clean, and PATH, below the test's own folder."""
    world = Sandbox(
        tmp_path, *(tmp_path / name for name in ("temp", "home", "log", "bin")), monkeypatch=monkeypatch
    )
    for folder in (world.temp, world.home, world.log, world.bin):
        folder.mkdir()
    for name in list(os.environ):
        if name.startswith(("AUTOMATION_", "XDG_")) or name in ("TEMP", "TMP", "PYTHONPATH"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TMPDIR", str(world.temp))
    monkeypatch.setenv("HOME", str(world.home))
    monkeypatch.setenv("AUTOMATION_LOG_ROOT", str(world.log))
    monkeypatch.setenv("PATH", str(world.bin))
    return world


@pytest.fixture
def load() -> Callable[[str], ModuleType]:
    """Imports a script as a module, for tests of one function."""

    def import_script(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return import_script
