"""Importing the module changes nothing, and what it has is what its stubs say."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Iterator

import pytest

import automation
from automation import _automation
from runs import python

STUBS = Path(automation.__file__).with_name("_automation.pyi")

UNCHANGED = """
import atexit, builtins, _thread, os, signal, subprocess, sys, threading

def state():
    modules = (sys, builtins, os, threading, _thread, subprocess, atexit, signal, sys.modules["__main__"])
    attributes = {
        (module.__name__, name, id(value))
        for module in modules
        for name, value in vars(module).items()
        if name not in ("before", "automation")
    }
    more = (type(sys), type(os.environ), type(sys.modules["__main__"]), sys.path[:], dict(os.environ))
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
    return attributes, more, handlers, threads, sys.gettrace(), sys.getprofile(), atexit._ncallbacks()

before = state()
import automation
for old, new in zip(before, state()):
    assert old == new, (old, new)
"""


def test_importing_changes_nothing() -> None:
    done = python(UNCHANGED)
    assert done.returncode == 0, done.stderr


def test_everything_public_is_listed() -> None:
    public = {name for name in vars(automation) if not name.startswith("_")}
    assert set(automation.__all__) == public | {"__version__"}
    assert automation.__all__ == sorted(automation.__all__)
    assert all(hasattr(_automation, name) for name in automation.__all__)


def test_the_version_is_the_crates() -> None:
    manifest = Path(__file__).resolve().parents[2] / "Cargo.toml"
    assert f'version = "{automation.__version__}"' in manifest.read_text()


def test_the_context_exists_only_in_a_run(helpdesk: automation.Automation) -> None:
    """A script that runs by hand notices, and brings its own stand-in."""
    with pytest.raises(ImportError):
        from automation import ctx
    assert not hasattr(automation, "ctx") and not hasattr(automation, "absent")
    assert helpdesk.manual("echo.py").parsed_output == {"ticket": None, "classification": None}


def test_scripts_import_the_same_module(helpdesk: automation.Automation, folder: Path) -> None:
    (folder / "same.py").write_text("import automation, json\nprint(json.dumps(automation.__file__))\n")
    helpdesk.reload()
    assert helpdesk.manual("same.py").parsed_output == {"value": automation.__file__}


# --- The stubs ------------------------------------------------------------------------------------


def stub_members(node: ast.ClassDef) -> Iterator[tuple[str, ast.stmt]]:
    for member in node.body:
        if isinstance(member, ast.FunctionDef):
            yield member.name, member
        elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            yield member.target.id, member


STUB_CLASSES = {
    node.name: node for node in ast.parse(STUBS.read_text()).body if isinstance(node, ast.ClassDef)
}


def test_the_stubs_have_every_class() -> None:
    classes = {name for name, value in vars(_automation).items() if isinstance(value, type)}
    assert set(STUB_CLASSES) == classes | {"Context"}


def context_class() -> type:
    classes = object.__subclasses__()
    return next(each for each in classes if (each.__module__, each.__name__) == ("automation", "Context"))


@pytest.mark.parametrize("name", STUB_CLASSES)
def test_the_stubs_have_every_member(name: str) -> None:
    real = context_class() if name == "Context" else getattr(automation, name)
    stub = dict(stub_members(STUB_CLASSES[name]))
    own = {member for member in vars(real) if not member.startswith("_")}
    # What an instance is given is declared on the class and set when it is raised.
    instance = {"execution"} if name == "ScriptFailedError" else set()
    inherited = {"code"} if issubclass(real, automation.AutomationError) else set()
    public = {member for member in stub if not member.startswith("_")}
    assert own - inherited <= public <= own | instance


def test_the_stubs_have_every_argument() -> None:
    for name, member in stub_members(STUB_CLASSES["Automation"]):
        if not isinstance(member, ast.FunctionDef) or name.startswith("__"):
            continue
        real = inspect.signature(getattr(automation.Automation, name)).parameters
        arguments = member.args
        stub = [each.arg for each in [*arguments.args, *arguments.kwonlyargs]]
        assert stub == list(real), name
        keyword_only = [each.name for each in real.values() if each.kind is each.KEYWORD_ONLY]
        assert [each.arg for each in arguments.kwonlyargs] == keyword_only, name
