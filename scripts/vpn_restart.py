#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = []
#
# [tool.automation]
# category = "VPN Issue"
# description = "VPN service restart and connection test"
# timeout_seconds = 660
# memory_mb = 128
# isolation = "in-process"
# risk = "low"
# idempotent = false
#
# [tool.automation.parameters.vpn_service]
# type = "string"
# default = "openvpn"
# pattern = "^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$"
# maxLength = 64
# description = "Name of the service as the service manager knows it"
#
# [tool.automation.parameters.restart_service]
# type = "boolean"
# default = true
# description = "Restart the service; without it the script only tests"
#
# [tool.automation.parameters.verify_connection]
# type = "boolean"
# default = true
# description = "Test the connection afterwards; a failed test fails the run"
#
# [tool.automation.parameters.timeout_seconds]
# type = "number"
# default = 30
# minimum = 1
# maximum = 300
# description = "Longest wait for the restart, and again for the connection"
#
# [tool.automation.parameters.check_host]
# type = "string"
# pattern = "^[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}$"
# maxLength = 253
# description = "Host behind the VPN that must accept a TCP connection; needs check_port"
#
# [tool.automation.parameters.check_port]
# type = "integer"
# minimum = 1
# maximum = 65535
# description = "Port of check_host"
#
# [tool.automation.parameters.interface]
# type = "string"
# pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$"
# maxLength = 15
# description = "Network interface that must be up, for example tun0"
#
# [tool.automation.parameters.dry_run]
# type = "boolean"
# default = false
# description = "Say what would be done and change nothing"
# ///
"""Restarts a VPN service through the system's service manager and tests the connection.

Run it by hand:

    python3 vpn_restart.py '{"vpn_service": "openvpn@office", "interface": "tun0"}'

A service that runs is not yet a tunnel that works: name an `interface`, or a `check_host` and
`check_port` that only the VPN can reach, and the test asks for those too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO, Any

# --- Plumbing: the same lines in every bundled script, so that each stays a single file ----------


class Failure(Exception):
    """What the caller should read: a stable code, one sentence, and the facts known so far."""

    def __init__(self, code: str, message: str, *, exit_code: int = 1, **facts: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.exit_code, self.facts = code, message, exit_code, facts


class ByHand:
    """Stands in for the context of a run when the script is started by hand."""

    ticket = None
    dry_run = False
    cancelled = False

    def remaining(self) -> float | None:
        return None

    def progress(self, fraction: float, text: str) -> None:
        self.log(f"{fraction:4.0%} {text}")

    def log(self, text: str) -> None:
        print(text, file=sys.stderr)

    def secret(self, name: str) -> str:
        try:
            return os.environ[f"AUTOMATION_SECRET_{name.upper()}"]
        except KeyError:
            raise LookupError(f"secret {name} is not configured") from None


try:
    from automation import ctx
except ImportError:
    ctx = ByHand()


def read_parameters(argv: list[str], schemas: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the checked parameters of the command line, with the defaults filled in."""
    try:
        given = json.loads(argv[1] if len(argv) > 1 else "{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _invalid("the parameters are not valid JSON") from None
    if not isinstance(given, dict):
        raise _invalid("the parameters must be one JSON object")
    unknown = sorted(set(given) - set(schemas))
    if unknown:
        raise _invalid(f"unknown parameter {unknown[0][:64]!a}")
    for name, value in given.items():
        _check(name, value, schemas[name])
    return {name: given.get(name, schema.get("default")) for name, schema in schemas.items()}


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _invalid(message: str) -> Failure:
    return Failure("invalid_parameters", message, exit_code=2)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**53


_IS_TYPE: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
}


def _check(name: str, value: Any, schema: dict[str, Any]) -> None:
    # No message repeats the value: it came from outside and may be long, hostile or confidential.
    if not _IS_TYPE[schema["type"]](value):
        raise _invalid(f"parameter {name} must be of type {schema['type']}")
    if "enum" in schema and value not in schema["enum"]:
        raise _invalid(f"parameter {name} must be one of {', '.join(schema['enum'])}")
    if "minimum" in schema and value < schema["minimum"]:
        raise _invalid(f"parameter {name} must be at least {schema['minimum']}")
    if "maximum" in schema and value > schema["maximum"]:
        raise _invalid(f"parameter {name} must be at most {schema['maximum']}")
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        raise _invalid(f"parameter {name} must have at most {schema['maxLength']} characters")
    # fullmatch, because `$` alone also accepts a trailing line break.
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        raise _invalid(f"parameter {name} must match {schema['pattern']}")


def finish(result: dict[str, Any], exit_code: int) -> int:
    """Prints the one JSON object that is the result of this script."""
    print(json.dumps(result))
    return exit_code


def finish_failed(failure: Failure) -> int:
    error = {"code": failure.code, "message": failure.message}
    return finish({"success": False, "error": error, **failure.facts}, failure.exit_code)


# --- What this script does ------------------------------------------------------------------------

# The same keywords as in the block above, which only a TOML reader understands; a test compares them.
PARAMETERS: dict[str, dict[str, Any]] = {
    "vpn_service": {
        "type": "string",
        "default": "openvpn",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$",
        "maxLength": 64,
    },
    "restart_service": {"type": "boolean", "default": True},
    "verify_connection": {"type": "boolean", "default": True},
    "timeout_seconds": {"type": "number", "default": 30, "minimum": 1, "maximum": 300},
    "check_host": {"type": "string", "pattern": "^[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}$", "maxLength": 253},
    "check_port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "interface": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$", "maxLength": 15},
    "dry_run": {"type": "boolean", "default": False},
}

POLL_SECONDS = 0.25
QUERY_SECONDS = 10.0
CONNECT_SECONDS = 5.0
OUTPUT_BYTES_MAX = 64 * 1024
SECONDS_RESERVED = 2.0  # left for the report when the run has a deadline


class Deadline:
    """The time that is left: our own limit, or the run's if that comes first."""

    def __init__(self, seconds: float) -> None:
        left = ctx.remaining()
        if left is not None:
            seconds = max(0.0, min(seconds, left - SECONDS_RESERVED))
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def at_most(self, seconds: float) -> float:
        return min(self.left(), seconds)


def stop_if_cancelled() -> None:
    if ctx.cancelled:
        raise Failure("cancelled", "the run was cancelled")


def pause(deadline: Deadline) -> None:
    stop_if_cancelled()
    time.sleep(deadline.at_most(POLL_SECONDS))


def run_command(argv: list[str], deadline: Deadline) -> subprocess.CompletedProcess[str]:
    """Runs a program by argument list and does not leave it behind."""
    # Files instead of pipes: a daemon that the program starts keeps a pipe open, and we would wait for it.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=child_environment()
        ) as process:
            try:
                wait_for(process, deadline)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(argv, process.returncode, tail(out), tail(err))


def child_environment() -> dict[str, str]:
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("AUTOMATION_SECRET_")}
    return {**inherited, "LC_ALL": "C"}  # the answers are read by this script


def wait_for(process: subprocess.Popen[bytes], deadline: Deadline) -> None:
    while True:
        stop_if_cancelled()
        try:
            process.wait(timeout=deadline.at_most(POLL_SECONDS))
            return
        except subprocess.TimeoutExpired:
            if not deadline.left():
                program = os.path.basename(str(process.args[0]))  # type: ignore[index]
                raise Failure("command_timeout", f"{program} did not end in time") from None


def tail(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - OUTPUT_BYTES_MAX))
    return file.read().decode("utf-8", "replace")


class Manager:
    """A service manager: how to ask for a state (`active`, `inactive`, `failed`, ...) and to restart."""

    name: str

    def __init__(self, program: str) -> None:
        self.program = program

    def works(self) -> bool:
        return True

    def state(self, service: str, deadline: Deadline) -> str:
        raise NotImplementedError

    def restart(self, service: str, deadline: Deadline) -> None:
        raise NotImplementedError

    def _ask(self, *arguments: str, deadline: Deadline) -> subprocess.CompletedProcess[str]:
        return run_command([self.program, *arguments], deadline)

    def _tell(self, *arguments: str, deadline: Deadline) -> None:
        answer = self._ask(*arguments, deadline=deadline)
        if answer.returncode != 0:
            reason = (answer.stderr or answer.stdout).strip()[-400:]
            raise Failure(
                "restart_failed",
                f"{self.name} {arguments[0]} ended with exit code {answer.returncode}: {reason}",
            )


def not_found(manager: str, service: str) -> Failure:
    return Failure("service_not_found", f"{manager} knows no service named {service}")


class Systemctl(Manager):
    name = "systemctl"

    def works(self) -> bool:
        # The program is installed in many containers where systemd does not run.
        answer = self._ask("is-system-running", deadline=Deadline(QUERY_SECONDS))
        return answer.stdout.strip() not in ("", "offline", "unknown")

    def state(self, service: str, deadline: Deadline) -> str:
        answer = self._ask("show", "--property=LoadState,ActiveState", "--", service, deadline=deadline)
        properties = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
        if properties.get("LoadState") == "not-found":
            raise not_found(self.name, service)
        return properties.get("ActiveState", "unknown")

    def restart(self, service: str, deadline: Deadline) -> None:
        self._tell("restart", "--no-ask-password", "--", service, deadline=deadline)


class Service(Manager):
    """The `service` command takes no `--`; the name's pattern keeps options out."""

    name = "service"

    # Exit codes of the Linux Standard Base for the action `status`.
    STATES = {0: "active", 1: "failed", 2: "failed", 3: "inactive"}

    def state(self, service: str, deadline: Deadline) -> str:
        answer = self._ask(service, "status", deadline=deadline)
        if "unrecognized service" in answer.stderr + answer.stdout:
            raise not_found(self.name, service)
        return self.STATES.get(answer.returncode, "unknown")

    def restart(self, service: str, deadline: Deadline) -> None:
        self._tell(service, "restart", deadline=deadline)


class Launchctl(Manager):
    name = "launchctl"

    STATES = {"running": "active", "not running": "inactive", "waiting": "inactive"}

    def state(self, service: str, deadline: Deadline) -> str:
        answer = self._ask("print", f"system/{service}", deadline=deadline)
        if answer.returncode != 0:
            raise not_found(self.name, service)
        found = re.search(r"^\s*state = (.+)$", answer.stdout, re.MULTILINE)
        return self.STATES.get(found.group(1).strip(), "unknown") if found else "unknown"

    def restart(self, service: str, deadline: Deadline) -> None:
        self._tell("kickstart", "-k", f"system/{service}", deadline=deadline)


class Sc(Manager):
    name = "sc"

    STATES = {"1": "inactive", "2": "activating", "3": "deactivating", "4": "active", "7": "paused"}
    NO_SUCH_SERVICE = 1060

    def state(self, service: str, deadline: Deadline) -> str:
        answer = self._ask("query", service, deadline=deadline)
        if answer.returncode == self.NO_SUCH_SERVICE:
            raise not_found(self.name, service)
        found = re.search(r"\bSTATE\s*:\s*(\d+)", answer.stdout)
        return self.STATES.get(found.group(1), "unknown") if found else "unknown"

    def restart(self, service: str, deadline: Deadline) -> None:
        if self.state(service, deadline) != "inactive":
            self._tell("stop", service, deadline=deadline)
            # `sc stop` returns before the service has stopped, and `sc start` refuses until then.
            while self.state(service, deadline) != "inactive":
                if not deadline.left():
                    raise Failure("restart_timeout", f"service {service} did not stop in time")
                pause(deadline)
        self._tell("start", service, deadline=deadline)


def managers(platform: str) -> tuple[type[Manager], ...]:
    # By platform, since a program of the same name does something else elsewhere (`sc` on Linux).
    if platform == "darwin":
        return (Launchctl,)
    if platform == "win32":
        return (Sc,)
    return (Systemctl, Service)


def find_manager(platform: str = sys.platform) -> Manager:
    for kind in managers(platform):
        program = shutil.which(kind.name)
        if program:
            manager = kind(program)
            if manager.works():
                return manager
    names = " or ".join(kind.name for kind in managers(platform))
    raise Failure("service_manager_missing", f"no working service manager was found on PATH ({names})")


def service_problem(manager: Manager, service: str) -> str | None:
    state = manager.state(service, Deadline(QUERY_SECONDS))
    return None if state == "active" else f"service {service} is {state}"


def interface_problem(name: str) -> str | None:
    try:
        with open(f"/sys/class/net/{name}/operstate", encoding="ascii") as answer:
            state = answer.read().strip()
    except OSError:
        known = name in (found for _, found in socket.if_nameindex())
        return None if known else f"interface {name} does not exist"
    # A tunnel has no carrier to watch: the kernel calls it `unknown` while it is up.
    return None if state in ("up", "unknown") else f"interface {name} is {state}"


def tcp_problem(host: str, port: int, deadline: Deadline) -> str | None:
    try:
        with socket.create_connection((host, port), timeout=max(0.1, deadline.at_most(CONNECT_SECONDS))):
            return None
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot carry
        return f"no TCP connection to {host} port {port} ({type(error).__name__})"


def connection_checks(
    parameters: dict[str, Any], manager: Manager, deadline: Deadline
) -> dict[str, Callable[[], str | None]]:
    """Names the wanted checks; each answers with its problem, or None when all is well."""
    service, interface = parameters["vpn_service"], parameters["interface"]
    host, port = parameters["check_host"], parameters["check_port"]
    checks: dict[str, Callable[[], str | None]] = {"service": lambda: service_problem(manager, service)}
    if interface is not None:
        checks["interface"] = lambda: interface_problem(interface)
    if host is not None:
        checks["tcp"] = lambda: tcp_problem(host, int(port), deadline)
    return checks


def check_connection(parameters: dict[str, Any], manager: Manager) -> dict[str, Any]:
    """Repeats the checks until all of them pass or the time is over."""
    started = time.monotonic()
    deadline = Deadline(parameters["timeout_seconds"])
    checks = connection_checks(parameters, manager, deadline)
    while True:
        stop_if_cancelled()
        problem = next(filter(None, (check() for check in checks.values())), None)
        if problem is None or not deadline.left():
            break
        pause(deadline)
    return {
        "performed": True,
        "ok": problem is None,
        "method": "+".join(checks),
        "detail": problem or "all checks passed",
        "seconds": round(time.monotonic() - started, 3),
    }


def not_performed(reason: str) -> dict[str, Any]:
    return {"performed": False, "ok": None, "method": None, "detail": reason, "seconds": 0.0}


def verify(parameters: dict[str, Any], manager: Manager, dry_run: bool) -> dict[str, Any]:
    if not parameters["verify_connection"]:
        return not_performed("not asked for")
    if dry_run:
        return not_performed("dry run")
    ctx.progress(0.5, "testing the connection")
    return check_connection(parameters, manager)


def restart_vpn(parameters: dict[str, Any]) -> dict[str, Any]:
    if (parameters["check_host"] is None) != (parameters["check_port"] is None):
        raise Failure("invalid_parameters", "check_host and check_port belong together", exit_code=2)
    service = parameters["vpn_service"]
    dry_run = parameters["dry_run"] or ctx.dry_run
    manager = find_manager()
    result: dict[str, Any] = {"service": service, "manager": manager.name, "restarted": False}
    result.update(dry_run=dry_run, actions_performed=[], connection_test=not_performed("not reached"))
    try:
        result["state_before"] = manager.state(service, Deadline(QUERY_SECONDS))
        restart(parameters, manager, dry_run, result)
        result["connection_test"] = verify(parameters, manager, dry_run)
        result["state_after"] = manager.state(service, Deadline(QUERY_SECONDS))
    except Failure as failure:
        failure.facts = {**result, **failure.facts}
        raise
    if result["connection_test"]["ok"] is False:
        raise Failure("connection_failed", result["connection_test"]["detail"], **result)
    ctx.progress(1.0, "done")
    return result


def restart(parameters: dict[str, Any], manager: Manager, dry_run: bool, result: dict[str, Any]) -> None:
    service = parameters["vpn_service"]
    if not parameters["restart_service"]:
        return
    if dry_run:
        result["actions_performed"].append(f"WOULD RESTART: {service} ({manager.name})")
        return
    ctx.progress(0.1, f"restarting {service}")
    manager.restart(service, Deadline(parameters["timeout_seconds"]))
    result["restarted"] = True
    result["actions_performed"].append(f"RESTARTED: {service} ({manager.name})")


def main() -> int:
    try:
        return finish({"success": True, **restart_vpn(read_parameters(sys.argv, PARAMETERS))}, 0)
    except Failure as failure:
        return finish_failed(failure)


if __name__ == "__main__":
    sys.exit(main())
