"""`scripts`, `script`, `invalid_scripts` and `reload`: what there is to run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Callable

import pytest

from automation import (
    Automation,
    InvalidParametersError,
    InvalidScriptError,
    ScriptNotFoundError,
    UnsupportedError,
)

PROMISE = """\
# /// script
# [tool.automation]
# cpu_seconds = 1.5
# output_kib = 64
# children_max = 2
# deny = ["network", "subprocess"]
# output_schema.properties.freed.type = "number"
# parameters.freed = { type = "string", required = true }
# ///
import json, sys
print('{"freed": ' + json.loads(sys.argv[1])["freed"] + "}")
"""


def test_valid_scripts_by_name(helpdesk: Automation) -> None:
    names = [script.name for script in helpdesk.scripts()]
    assert names == ["echo.py", "exits.py", "hello.py", "raises.py", "secret.py", "waits.py"]


def test_what_a_script_says_of_itself(helpdesk: Automation, folder: Path) -> None:
    script = helpdesk.script("hello.py")
    assert (script.name, script.category) == ("hello.py", "Greeting")
    assert script.description == "Says hello"
    assert script.parameters == {"name": "string", "dry_run": "boolean"}
    assert script.defaults == {"name": "world", "dry_run": False}
    assert script.schema["additionalProperties"] is False
    assert (script.timeout, script.memory_mb) == (20.0, 512)
    assert (script.cpu_seconds, script.output_kib, script.children_max) == (None, 1024, None)
    assert (script.deny, script.output_schema) == ([], None)
    assert (script.isolation, script.risk, script.entry) == ("in-process", "low", "plain")
    assert (script.idempotent, script.context_argv, script.order) == (False, False, 100)
    assert (script.requires_python, script.dependencies, script.warnings) == (None, [], [])
    assert script.path == str(folder / "hello.py")
    assert script.version == hashlib.sha256((folder / "hello.py").read_bytes()).hexdigest()
    assert repr(script) == "Script(name='hello.py', category='Greeting')"
    assert repr(helpdesk.script("exits.py")) == "Script(name='exits.py', category=None)"


def test_limits_and_promises_of_a_script(folder: Path, open_helpdesk: Callable[..., Automation]) -> None:
    (folder / "promise.py").write_text(PROMISE)
    helpdesk = open_helpdesk(workers=1)
    script = helpdesk.script("promise.py")
    assert (script.cpu_seconds, script.output_kib, script.children_max) == (1.5, 64, 2)
    assert script.deny == ["network", "subprocess"]
    assert script.output_schema == {"properties": {"freed": {"type": "number"}}}
    assert helpdesk.manual("promise.py", {"freed": "2.5"}).status == "completed"
    run = helpdesk.manual("promise.py", {"freed": '"much"'})
    assert (run.status, run.reason) == ("failed", "invalid_output")
    assert run.error == "the result does not fit the output schema: /freed: expected number"
    assert (run.output, run.parsed_output) == ('{"freed": "much"}\n', {"freed": "much"})


def test_a_script_is_a_value(helpdesk: Automation) -> None:
    script = helpdesk.script("hello.py")
    assert script in helpdesk.scripts()
    assert hash(script) == hash(helpdesk.script("hello.py"))
    assert script != helpdesk.script("exits.py")
    fields = json.loads(json.dumps(script.to_dict()))
    properties = {name for name in dir(script) if not name.startswith("_")}
    assert set(fields) == properties - {"to_dict"}


def test_invalid_scripts_say_why(helpdesk: Automation) -> None:
    [broken] = helpdesk.invalid_scripts()
    assert broken.name == "broken.py"
    assert broken.problems[0].startswith("broken.py:1")
    assert json.loads(json.dumps(broken.to_dict())) == {"name": "broken.py", "problems": broken.problems}
    with pytest.raises(InvalidScriptError):
        helpdesk.script("broken.py")
    with pytest.raises(ScriptNotFoundError):
        helpdesk.script("absent.py")


def test_reload_reads_the_folder_again(helpdesk: Automation, folder: Path) -> None:
    former = helpdesk.script("hello.py")
    (folder / "hello.py").write_text("print('{}')\n")
    (folder / "new.py").write_text("print('{}')\n")
    (folder / "exits.py").unlink()
    assert helpdesk.script("hello.py") == former
    helpdesk.reload()
    names = [script.name for script in helpdesk.scripts()]
    assert names == ["echo.py", "hello.py", "new.py", "raises.py", "secret.py", "waits.py"]
    assert helpdesk.script("hello.py") != former
    assert helpdesk.manual("hello.py").parsed_output == {}


def test_the_former_scripts_stay_when_the_folder_goes(helpdesk: Automation, folder: Path) -> None:
    folder.rename(folder.with_name("gone"))
    with pytest.raises(UnsupportedError, match="scripts folder"):
        helpdesk.reload()
    assert helpdesk.manual("hello.py").status == "completed"


def test_a_source_is_validated_and_not_kept(helpdesk: Automation) -> None:
    head = '# /// script\n# [tool.automation]\n# entry = "run"\n# ///\n'
    run = "def run(ctx, *, user: str, days: int = 30):\n    return {}\n"
    found = helpdesk.validate(head + run, name="new.py")
    assert found and found.valid and found.script is not None
    assert found.script.parameters == {"user": "string", "days": "integer"}
    assert found.problems[0].startswith("new.py:5:1: can't be run by hand")
    assert json.loads(json.dumps(found.to_dict()))["script"]["defaults"] == {"days": 30}
    broken = helpdesk.validate("x = = 1\n")
    assert not broken and broken.script is None
    assert broken.problems == ["script.py:1:5: SyntaxError: invalid syntax"]
    assert repr(broken) == f"Validation(name='script.py', problems={broken.problems})"
    assert not helpdesk.validate("(" * 200_000)
    with pytest.raises(ScriptNotFoundError):
        helpdesk.script("new.py")


def test_annotations_are_the_schema_of_a_script(helpdesk: Automation, folder: Path) -> None:
    head = '# /// script\n# [tool.automation]\n# entry = "run"\n# ///\n'
    (folder / "typed.py").write_text(head + "def run(ctx, *, n: int = 2):\n    return {'n': n}\n")
    helpdesk.reload()
    assert helpdesk.script("typed.py").parameters == {"n": "integer"}
    assert helpdesk.manual("typed.py").parsed_output == {"n": 2}
    assert helpdesk.manual("typed.py", {"n": 5}).parsed_output == {"n": 5}
    for wrong in ({"n": True}, {"n": "5"}, {"m": 1}):
        with pytest.raises(InvalidParametersError):
            helpdesk.manual("typed.py", wrong)
