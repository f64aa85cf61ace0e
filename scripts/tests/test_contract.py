"""What every bundled script promises, read from its text."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SCRIPTS, run_by_hand

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAMES = sorted(path.name for path in SCRIPTS.glob("*.py"))
OURS = {"description", "secret", "required"}

# The least that each script must offer, with these types and defaults.
PROMISED = {
    "disk_cleanup.py": {
        "category": "Device Slow",
        "min_free_space_gb": ("number", 5),
        "clear_temp": ("boolean", True),
        "clear_cache": ("boolean", True),
        "clear_logs": ("boolean", True),
    },
    "vpn_restart.py": {
        "category": "VPN Issue",
        "vpn_service": ("string", "openvpn"),
        "restart_service": ("boolean", True),
        "verify_connection": ("boolean", True),
        "timeout_seconds": ("number", 30),
    },
    "password_reset.py": {
        "category": "Password Reset",
        "reset_type": ("string", "self_service"),
        "notify_user": ("boolean", True),
        "force_change": ("boolean", False),
    },
}


def source(name: str) -> str:
    return (SCRIPTS / name).read_text(encoding="utf-8")


def metadata(name: str) -> dict[str, Any]:
    """Reads the block the way that PEP 723 prescribes."""
    block = re.search(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$", source(name))
    assert block, "no metadata block"
    lines = block.group("content").splitlines(keepends=True)
    return tomllib.loads("".join(line[2:] if line.startswith("# ") else line[1:] for line in lines))


def test_the_three_scripts_are_there() -> None:
    assert set(NAMES) == set(PROMISED)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_offers_what_is_promised(name: str) -> None:
    block = metadata(name)
    automation = block["tool"]["automation"]
    promised = dict(PROMISED[name])
    assert block["requires-python"] == ">=3.9"
    assert block["dependencies"] == []
    assert automation["category"] == promised.pop("category")
    for parameter, (kind, default) in promised.items():
        schema = automation["parameters"][parameter]
        assert (schema["type"], schema["default"], type(schema["default"])) == (kind, default, type(default))


@pytest.mark.parametrize("name", NAMES)
def test_metadata_and_code_agree(name: str, load: Any) -> None:
    parameters = metadata(name)["tool"]["automation"]["parameters"]
    described = {
        parameter: {key: value for key, value in schema.items() if key not in OURS}
        for parameter, schema in parameters.items()
    }
    assert described == load(Path(name).stem).PARAMETERS
    assert all(schema["description"] for schema in parameters.values())


@pytest.mark.parametrize("name", NAMES)
def test_free_text_is_bounded_and_never_begins_like_an_option(name: str) -> None:
    for schema in metadata(name)["tool"]["automation"]["parameters"].values():
        if schema["type"] == "string" and "enum" not in schema:
            assert schema["maxLength"] <= 253
            for hostile in ("-x", "--help", "", "a b", "a;b", "a\nb", "$(a)", "a/b", "a\0"):
                assert not re.fullmatch(schema["pattern"], hostile)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_goes_through_a_shell(name: str) -> None:
    forbidden = {"system", "popen", "eval", "exec", "fork", "chdir", "umask", "signal", "_exit"}
    for node in ast.walk(ast.parse(source(name))):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in forbidden, f"line {node.lineno}"
            assert not any(keyword.arg == "shell" for keyword in node.keywords), f"line {node.lineno}"


def test_the_plumbing_is_the_same_in_every_script() -> None:
    parts = {re.search(r"(?s)# --- Plumbing.*# --- What this", source(name)).group() for name in NAMES}
    assert len(parts) == 1


@pytest.mark.parametrize("name", NAMES)
def test_only_the_standard_library_is_imported(name: str) -> None:
    if sys.version_info < (3, 10):
        pytest.skip("the list of standard modules came with Python 3.10; newer versions run this test")
    for node in ast.walk(ast.parse(source(name))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            assert module.split(".")[0] in {*sys.stdlib_module_names, "automation"}


@pytest.mark.parametrize("name", NAMES)
def test_importing_a_script_does_nothing(name: str, load: Any, capfd: pytest.CaptureFixture[str]) -> None:
    load(Path(name).stem)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "parameters",
    [
        "{", "[]", "null", '"text"', '{"dry_run": NaN}', '{"no_such": 1}', '{"dry_run": 1}',
        '{"dry_run": "yes"}', '{"dry_run": null}', "[" * 100_000,
    ],
)  # fmt: skip
def test_bad_parameters_by_hand_exit_with_2(name: str, parameters: str) -> None:
    run = run_by_hand(name, parameters, {})
    assert (run.exit_code, run.error_code) == (2, "invalid_parameters")


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("disk_cleanup.py", {"min_free_space_gb": -1}),
        ("disk_cleanup.py", {"min_age_hours": -0.1}),
        ("disk_cleanup.py", {"min_free_space_gb": True}),
        ("disk_cleanup.py", {"min_free_space_gb": "5"}),
        ("vpn_restart.py", {"timeout_seconds": 0}),
        ("vpn_restart.py", {"timeout_seconds": 301}),
        ("vpn_restart.py", {"check_port": 80.5, "check_host": "localhost"}),
        ("vpn_restart.py", {"check_port": 65536, "check_host": "localhost"}),
        ("vpn_restart.py", {"interface": "../eth0"}),
        ("password_reset.py", {"reset_type": "other"}),
        ("password_reset.py", {"backend": "other", "user": "jdoe"}),
        ("password_reset.py", {"user": "x" * 65}),
    ],
)
def test_values_outside_the_schema_are_refused(
    run_script: Any, name: str, parameters: dict[str, Any]
) -> None:
    run = run_script(name, parameters)
    assert (run.exit_code, run.error_code) == (2, "invalid_parameters")


def test_a_refusal_never_repeats_the_value(run_script: Any) -> None:
    run = run_script("password_reset.py", {"user": "-hunter2-hunter2"})
    if run.way == "by_hand":  # what the executor says about a value is its own promise
        assert "hunter2" not in run.everything
