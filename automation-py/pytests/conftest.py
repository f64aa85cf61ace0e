"""A folder of small scripts for each test, and a handle on it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from automation import Automation

SCRIPTS = {
    "hello.py": """
        # /// script
        # [tool.automation]
        # category = "Greeting"
        # description = "Says hello"
        # timeout_seconds = 20
        # [tool.automation.parameters.name]
        # type = "string"
        # default = "world"
        # [tool.automation.parameters.dry_run]
        # type = "boolean"
        # default = false
        # ///
        import json, sys
        print(json.dumps({"hello": json.loads(sys.argv[1])["name"]}))
        """,
    "echo.py": """
        # /// script
        # [tool.automation]
        # category = "Echo"
        # ///
        import json
        from automation import ctx
        print(json.dumps({"ticket": ctx.ticket, "classification": ctx.classification}))
        """,
    "raises.py": """
        import sys
        print("a line")
        print("a warning", file=sys.stderr)
        raise ValueError("no such printer")
        """,
    "exits.py": """
        import sys
        print("half done")
        sys.exit(3)
        """,
    "waits.py": """
        # /// script
        # [tool.automation.parameters.started]
        # type = "string"
        # required = true
        # ///
        import json, pathlib, sys, time
        pathlib.Path(json.loads(sys.argv[1])["started"]).touch()
        while True:
            time.sleep(0.005)
        """,
    "secret.py": """
        from automation import ctx
        print("the token is", ctx.secret("token"))
        """,
    "broken.py": "def broken(:\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the scripts."""
    folder = tmp_path / "scripts"
    folder.mkdir(mode=0o755)
    for name, source in SCRIPTS.items():
        (folder / name).write_text(textwrap.dedent(source).lstrip())
    return folder


@pytest.fixture
def open_helpdesk(folder: Path) -> Iterator[Callable[..., Automation]]:
    """Opens handles on the folder, and shuts them down at the end."""
    opened: list[Automation] = []

    def open_one(**settings: Any) -> Automation:
        opened.append(Automation(folder, **settings))
        return opened[-1]

    yield open_one
    for helpdesk in opened:
        helpdesk.shutdown(grace=0)


@pytest.fixture
def helpdesk(open_helpdesk: Callable[..., Automation]) -> Automation:
    """A handle with the defaults, but for fewer workers."""
    return open_helpdesk(workers=2)
