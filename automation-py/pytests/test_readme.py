"""The README's Python lines work as printed."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_python_lines_work_as_printed(tmp_path: pathlib.Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.split("```python\n")[1].split("```")[0]
    (tmp_path / "scripts").mkdir()
    for script in (ROOT / "scripts").glob("*.py"):
        shutil.copy(script, tmp_path / "scripts")
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": str(tmp_path / "home"),
        "AUTOMATION_LOG_ROOT": str(tmp_path / "tmp"),
    }
    environment.pop("XDG_CACHE_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("completed {"), done.stdout
    assert (tmp_path / "automation.db").exists()
