"""VPN restart against a service manager of the test's own on PATH."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from conftest import Run, Sandbox

SCRIPT = "vpn_restart.py"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the managers of other systems are tested on Linux"
)

SYSTEMCTL = """
state = {state!r}
def read():
    return open(state).read() if os.path.exists(state) else "inactive"
verb = sys.argv[1]
if verb == "is-system-running":
    print({system!r})
elif verb == "show":
    print("LoadState=" + ("not-found" if sys.argv[-1] == "missing" else "loaded"))
    print("ActiveState=" + read())
elif verb == "restart":
    if {fails}:
        sys.exit("Job for openvpn.service failed.")
    import time
    time.sleep({seconds})
    open(state, "w").write({after!r})
"""

LAST_SEEN_RESTART = ["restart", "--no-ask-password", "--", "openvpn"]


@pytest.fixture
def systemctl(sandbox: Sandbox) -> Callable[..., None]:
    def install(
        *, system: str = "running", fails: bool = False, seconds: float = 0, after: str = "active"
    ) -> None:
        state = str(sandbox.root / "state")
        sandbox.program(
            "systemctl",
            SYSTEMCTL.format(state=state, system=system, fails=fails, seconds=seconds, after=after),
        )

    return install


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def restarts(sandbox: Sandbox) -> list[list[str]]:
    return [argv for argv in sandbox.argvs("systemctl") if argv[0] == "restart"]


def test_restarts_and_verifies(run_script: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl()
    run: Run = run_script(SCRIPT)
    assert run.exit_code == 0
    test = run.result.pop("connection_test")
    assert 0 <= test.pop("seconds") < 10
    assert test == {"performed": True, "ok": True, "method": "service", "detail": "all checks passed"}
    assert run.result == {
        "success": True,
        "service": "openvpn",
        "manager": "systemctl",
        "restarted": True,
        "state_before": "inactive",
        "state_after": "active",
        "dry_run": False,
        "actions_performed": ["RESTARTED: openvpn (systemctl)"],
    }
    assert restarts(sandbox) == [LAST_SEEN_RESTART]


def test_names_of_instances_reach_the_manager_as_one_argument(
    run_script: Any, sandbox: Sandbox, systemctl: Any
) -> None:
    systemctl()
    assert run_script(SCRIPT, {"vpn_service": "wg-quick@wg0.service"}).exit_code == 0
    assert restarts(sandbox)[0][-2:] == ["--", "wg-quick@wg0.service"]


HOSTILE = [
    "-rf",
    "--now",
    "a b",
    "a;reboot",
    "$(reboot)",
    "`id`",
    "../x",
    "a\nb",
    "openvpn\n",
    "",
    "x" * 65,
    "а",
    "a|b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_reach_no_program(run_script: Any, sandbox: Sandbox, systemctl: Any, name: str) -> None:
    systemctl()
    run = run_script(SCRIPT, {"vpn_service": name})
    assert (run.exit_code, run.error_code) == (2, "invalid_parameters")
    assert sandbox.calls("systemctl") == []


@pytest.mark.parametrize("parameter", ["check_host", "interface"])
def test_hostile_targets_are_refused(
    run_script: Any, sandbox: Sandbox, systemctl: Any, parameter: str
) -> None:
    systemctl()
    for value in [*HOSTILE, "a/b", "x" * 254]:
        if (parameter, value) == ("check_host", "x" * 65):
            continue  # a service may not have this name, but a host may
        given = {parameter: value, **({"check_port": 1} if parameter == "check_host" else {})}
        assert run_script(SCRIPT, given).exit_code == 2, value
    assert sandbox.calls("systemctl") == []


def test_no_service_manager_is_a_clear_failure(run_script: Any) -> None:
    run = run_script(SCRIPT)
    assert (run.exit_code, run.error_code) == (1, "service_manager_missing")
    assert "systemctl or service" in run.result["error"]["message"]


def test_a_service_that_does_not_exist(run_script: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl()
    run = run_script(SCRIPT, {"vpn_service": "missing"})
    assert (run.exit_code, run.error_code) == (1, "service_not_found")
    assert run.result["restarted"] is False
    assert restarts(sandbox) == []


def test_a_restart_that_fails(run_script: Any, systemctl: Any) -> None:
    systemctl(fails=True)
    run = run_script(SCRIPT)
    assert (run.exit_code, run.error_code) == (1, "restart_failed")
    assert "Job for openvpn.service failed." in run.result["error"]["message"]
    assert run.result["restarted"] is False
    assert run.result["state_before"] == "inactive"
    assert run.result["actions_performed"] == []


def test_a_service_that_never_comes_up(run_script: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl(after="activating")
    started = time.monotonic()
    run = run_script(SCRIPT, {"timeout_seconds": 1})
    assert 1 <= time.monotonic() - started < 8
    assert (run.exit_code, run.error_code) == (1, "connection_failed")
    assert run.result["restarted"] is True
    assert run.result["connection_test"]["ok"] is False
    assert run.result["connection_test"]["detail"] == "service openvpn is activating"
    assert run.result["state_after"] == "activating"
    asked = [argv for argv in sandbox.argvs("systemctl") if argv[0] == "show"]
    assert 4 <= len(asked) <= 8  # four times a second, not as fast as it can


def test_a_restart_that_takes_too_long_is_ended(run_script: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl(seconds=20)
    started = time.monotonic()
    run = run_script(SCRIPT, {"timeout_seconds": 1})
    assert time.monotonic() - started < 8
    assert (run.exit_code, run.error_code) == (1, "command_timeout")
    time.sleep(0.2)
    assert not (sandbox.root / "state").exists()


def test_a_daemon_that_keeps_the_output_open_does_not_hold_the_run(run_script: Any, sandbox: Sandbox) -> None:
    body = SYSTEMCTL.format(
        state=str(sandbox.root / "state"), system="running", fails=False, seconds=0, after="active"
    )
    pid = sandbox.root / "pid"
    daemon = f"""
if verb == "restart":
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    open({str(pid)!r}, "w").write(str(child.pid))
"""
    sandbox.program("systemctl", body + daemon)
    started = time.monotonic()
    try:
        assert run_script(SCRIPT, {"timeout_seconds": 20}).exit_code == 0
        assert time.monotonic() - started < 10
    finally:
        os.kill(int(pid.read_text()), 9)


def test_only_testing_restarts_nothing(run_script: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl()
    (sandbox.root / "state").write_text("active")
    run = run_script(SCRIPT, {"restart_service": False})
    assert run.exit_code == 0
    assert (run.result["restarted"], run.result["actions_performed"]) == (False, [])
    assert run.result["connection_test"]["ok"] is True
    assert restarts(sandbox) == []


def test_only_restarting_tests_nothing(run_script: Any, systemctl: Any) -> None:
    systemctl(after="failed")
    run = run_script(SCRIPT, {"verify_connection": False})
    assert run.exit_code == 0
    assert run.result["connection_test"]["performed"] is False
    assert run.result["state_after"] == "failed"


def test_dry_run_restarts_nothing(run_script: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl()
    run = run_script(SCRIPT, {"dry_run": True})
    assert run.exit_code == 0
    assert run.result["actions_performed"] == ["WOULD RESTART: openvpn (systemctl)"]
    assert run.result["restarted"] is False
    assert run.result["connection_test"]["performed"] is False
    assert restarts(sandbox) == []


def test_a_real_tcp_connection(run_script: Any, systemctl: Any, listener: int) -> None:
    systemctl()
    run = run_script(SCRIPT, {"check_host": "127.0.0.1", "check_port": listener})
    assert run.exit_code == 0
    assert run.result["connection_test"]["method"] == "service+tcp"


def test_a_port_that_nobody_listens_on(run_script: Any, systemctl: Any) -> None:
    systemctl()
    port = free_port()
    run = run_script(SCRIPT, {"check_host": "127.0.0.1", "check_port": port, "timeout_seconds": 1})
    assert run.error_code == "connection_failed"
    assert run.result["connection_test"]["detail"] == (
        f"no TCP connection to 127.0.0.1 port {port} (ConnectionRefusedError)"
    )


def test_a_host_name_that_dns_cannot_carry(run_script: Any, systemctl: Any) -> None:
    systemctl()
    run = run_script(SCRIPT, {"check_host": "x" * 65, "check_port": 1, "timeout_seconds": 1})
    assert run.error_code == "connection_failed"
    assert "Unicode" in run.result["connection_test"]["detail"]


def test_waits_for_a_port_that_opens_late(run_script: Any, systemctl: Any) -> None:
    systemctl()
    port = free_port()
    servers: list[socket.socket] = []
    late = threading.Timer(1.5, lambda: servers.append(socket.create_server(("127.0.0.1", port))))
    late.start()
    try:
        run = run_script(SCRIPT, {"check_host": "127.0.0.1", "check_port": port, "timeout_seconds": 20})
    finally:
        late.join()
        servers[0].close()
    assert run.exit_code == 0
    assert run.result["connection_test"]["seconds"] > 0.5


@pytest.mark.parametrize("given", [{"check_host": "localhost"}, {"check_port": 80}])
def test_host_and_port_belong_together(run_script: Any, systemctl: Any, given: dict[str, Any]) -> None:
    systemctl()
    run = run_script(SCRIPT, given)
    assert (run.exit_code, run.error_code) == (2, "invalid_parameters")


def test_an_interface_that_is_up(run_script: Any, systemctl: Any) -> None:
    systemctl()
    run = run_script(SCRIPT, {"interface": "lo"})
    assert run.exit_code == 0
    assert run.result["connection_test"]["method"] == "service+interface"


def test_an_interface_that_is_missing(run_script: Any, systemctl: Any) -> None:
    systemctl()
    run = run_script(SCRIPT, {"interface": "tun4711", "timeout_seconds": 1})
    assert run.result["connection_test"]["detail"] == "interface tun4711 does not exist"


def test_systemctl_without_systemd_is_passed_over(run_script: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl(system="offline")
    state = str(sandbox.root / "sysv")
    sandbox.program(
        "service",
        f"""
        if sys.argv[2] == "restart":
            open({state!r}, "w").close()
        sys.exit(0 if os.path.exists({state!r}) else 3)
        """,
    )
    run = run_script(SCRIPT)
    assert run.exit_code == 0
    assert run.result["manager"] == "service"
    assert (run.result["state_before"], run.result["state_after"]) == ("inactive", "active")
    assert ["openvpn", "restart"] in sandbox.argvs("service")
    assert restarts(sandbox) == []


def test_children_do_not_inherit_secrets(run_script: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl()
    run_script(SCRIPT, {}, {"smtp_password": "canary-4711-canary"})
    assert sandbox.calls("systemctl")
    assert "canary-4711-canary" not in sandbox.all_calls()


# --- The managers of other systems, one by one ----------------------------------------------------


def test_launchctl(load: Any, sandbox: Sandbox) -> None:
    module = load("vpn_restart")
    sandbox.program(
        "launchctl",
        """
        if sys.argv[1] == "print" and sys.argv[2] != "system/org.openvpn":
            sys.exit(113)
        print("system/org.openvpn = {")
        print("\\tstate = running")
        """,
    )
    manager = module.find_manager("darwin")
    deadline = module.Deadline(10)
    assert manager.state("org.openvpn", deadline) == "active"
    manager.restart("org.openvpn", deadline)
    assert sandbox.argvs("launchctl")[-1] == ["kickstart", "-k", "system/org.openvpn"]
    with pytest.raises(module.Failure) as caught:
        manager.state("other", deadline)
    assert caught.value.code == "service_not_found"


def test_sc_waits_for_the_stop(load: Any, sandbox: Sandbox) -> None:
    module = load("vpn_restart")
    stopping = str(sandbox.root / "stopping")
    sandbox.program(
        "sc",
        f"""
        stopping = {stopping!r}
        if sys.argv[1] == "stop":
            open(stopping, "w").write("..")
        elif sys.argv[1] == "start":
            if open(stopping).read():
                sys.exit("1056")
            os.unlink(stopping)
        elif not os.path.exists(stopping):
            print("        STATE              : 4  RUNNING")
        else:
            left = open(stopping).read()
            print("        STATE              : " + ("3  STOP_PENDING" if left else "1  STOPPED"))
            open(stopping, "w").write(left[1:])
        """,
    )
    manager = module.find_manager("win32")
    manager.restart("OpenVPNService", module.Deadline(10))
    assert [argv[0] for argv in sandbox.argvs("sc") if argv[0] != "query"] == ["stop", "start"]
    assert manager.state("OpenVPNService", module.Deadline(10)) == "active"


def test_sc_is_not_asked_on_linux(load: Any, sandbox: Sandbox) -> None:
    module = load("vpn_restart")
    sandbox.program("sc")
    with pytest.raises(module.Failure):
        module.find_manager("linux")
    assert sandbox.calls("sc") == []


# --- The context of a run -------------------------------------------------------------------------


def test_the_context_can_ask_for_a_dry_run(run_with_context: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl()
    assert run_with_context(SCRIPT, {}, {"dry_run": True}).result["dry_run"] is True
    assert restarts(sandbox) == []


def test_a_cancelled_run_leaves_no_program_behind(
    run_with_context: Any, sandbox: Sandbox, systemctl: Any
) -> None:
    systemctl(seconds=20)
    started = time.monotonic()
    run = run_with_context(SCRIPT, {}, {"looks_before_cancel": 8})
    assert time.monotonic() - started < 10
    assert (run.exit_code, run.error_code) == (1, "cancelled")
    time.sleep(0.2)
    assert not (sandbox.root / "state").exists()


def test_the_deadline_of_the_run_shortens_the_wait(run_with_context: Any, systemctl: Any) -> None:
    systemctl(after="activating")
    started = time.monotonic()
    run = run_with_context(SCRIPT, {"timeout_seconds": 300}, {"remaining": 3.0})
    assert time.monotonic() - started < 10
    assert run.error_code == "connection_failed"


def test_a_ticket_runs_with_the_defaults(run_ticket: Any, sandbox: Sandbox, systemctl: Any) -> None:
    systemctl()
    run = run_ticket({"id": "T-1", "issue_text": "restart nginx; rm -rf /", "user_id": "jdoe"}, "VPN Issue")
    assert run.exit_code == 0
    assert restarts(sandbox) == [LAST_SEEN_RESTART]
