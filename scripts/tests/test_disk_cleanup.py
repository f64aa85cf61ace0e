"""Disk clean-up in a tree of the test's own, beside a sentinel that must never change."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import Run, Sandbox, run_by_hand

SCRIPT = "disk_cleanup.py"
EVERYTHING = {"min_age_hours": 0}


def fill(path: Path, size: int = 10_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    return path


def blocks(*paths: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in paths)


def fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        digest.update(f"{path} {info.st_mode} {info.st_ino} {info.st_nlink} {info.st_mtime_ns}".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture
def sentinel(sandbox: Sandbox) -> Any:
    """A folder outside of every root; the test fails if one bit of it changes."""
    folder = sandbox.root / "sentinel"
    fill(folder / "precious")
    fill(folder / "deep" / "precious.gz")
    before = fingerprint(folder)
    yield folder
    assert fingerprint(folder) == before


def test_removes_files_and_empty_folders_below_temp(run_script: Any, sandbox: Sandbox) -> None:
    files = [
        fill(sandbox.temp / "a"),
        fill(sandbox.temp / "b" / "c" / "d", 100_000),
        fill(sandbox.temp / "b" / "e", 0),
    ]
    size = blocks(*files)
    run: Run = run_script(SCRIPT, {**EVERYTHING, "clear_cache": False, "clear_logs": False})
    assert run.exit_code == 0
    assert list(sandbox.temp.iterdir()) == []
    assert run.result["files_removed"] == 3
    assert run.result["directories_removed"] == 2
    assert run.result["space_freed_bytes"] == size
    assert run.result["space_freed_gb"] == round(size / 1024**3, 3)
    assert run.result["actions_performed"] == [f"CLEANED: temp files (3 files, {size / 1024:.1f} KB)"]
    assert run.result["errors"] == []


def test_defaults_keep_what_is_new(run_script: Any, sandbox: Sandbox) -> None:
    new = fill(sandbox.temp / "new")
    run = run_script(SCRIPT)
    assert new.exists()
    assert run.result["skipped"] == {"too_new": 1}
    assert run.result["actions_performed"] == [
        "NOTHING TO CLEAN: temp files",
        "NOTHING TO CLEAN: browser cache",
        "NOTHING TO CLEAN: rotated logs",
    ]


def test_age_counts_from_the_last_change_of_any_kind(run_script: Any, sandbox: Sandbox) -> None:
    old = fill(sandbox.temp / "old")
    old_folder = fill(sandbox.temp / "folder" / "old").parent
    time.sleep(2)
    new = fill(sandbox.temp / "new")
    unpacked = fill(sandbox.temp / "unpacked")
    os.utime(unpacked, (0, 0))  # as an archive leaves it: old by its own account, here for no time
    new_folder = sandbox.temp / "new_folder"
    new_folder.mkdir()
    run = run_script(SCRIPT, {"min_age_hours": 1.5 / 3600})
    assert not old.exists()
    assert not old_folder.exists()
    assert new.exists() and unpacked.exists() and new_folder.exists()
    assert run.result["skipped"] == {"too_new": 2}


def test_never_follows_a_symbolic_link(run_script: Any, sandbox: Sandbox, sentinel: Path) -> None:
    (sandbox.temp / "to_folder").symlink_to(sentinel)
    (sandbox.temp / "to_file").symlink_to(sentinel / "precious")
    (sandbox.temp / "dangling").symlink_to(sandbox.root / "nowhere")
    (sandbox.log / "old.gz").symlink_to(sentinel / "precious")
    fill(sandbox.home / ".cache" / "chromium" / "x")
    (sandbox.home / ".cache" / "chromium" / "link").symlink_to(sentinel)
    (sandbox.home / ".cache" / "mozilla").symlink_to(sentinel)  # on the way to a root
    (sandbox.home / ".cache" / "opera").symlink_to(sentinel)  # a root itself
    run = run_script(SCRIPT, EVERYTHING)
    assert run.exit_code == 0
    assert run.result["files_removed"] == 1
    assert run.result["skipped"]["symbolic_links"] == 5
    assert [error["error"] for error in run.result["errors"]] in (["ENOTDIR"], ["ELOOP"])


def test_a_hard_link_frees_only_with_its_last_name(run_script: Any, sandbox: Sandbox, sentinel: Path) -> None:
    outside = fill(sandbox.root / "outside")
    os.link(outside, sandbox.temp / "second_name")
    pair = fill(sandbox.temp / "pair_a")
    os.link(pair, sandbox.temp / "pair_b")
    size = blocks(pair)
    content = outside.read_bytes()
    dry = run_script(SCRIPT, {**EVERYTHING, "dry_run": True})
    run = run_script(SCRIPT, EVERYTHING)
    assert outside.read_bytes() == content
    assert list(sandbox.temp.iterdir()) == []
    assert run.result["files_removed"] == dry.result["would_remove_files"] == 3
    assert run.result["space_freed_bytes"] == dry.result["would_free_bytes"] == size


def test_removing_one_name_does_not_make_the_other_too_new(run_script: Any, sandbox: Sandbox) -> None:
    first = fill(sandbox.temp / "first")
    os.link(first, sandbox.temp / "second")
    time.sleep(2)
    run = run_script(SCRIPT, {"min_age_hours": 1.5 / 3600})
    assert run.result["files_removed"] == 2


def test_caches_of_known_browsers_only(run_script: Any, sandbox: Sandbox) -> None:
    cache = sandbox.home / ".cache"
    gone = [
        fill(cache / "google-chrome" / "Default" / "Cache" / "data_0"),
        fill(cache / "chromium" / "Default" / "x"),
        fill(cache / "mozilla" / "firefox" / "p.default" / "cache2" / "entries" / "A"),
        fill(cache / "microsoft-edge" / "x"),
        fill(cache / "BraveSoftware" / "Brave-Browser" / "x"),
        fill(cache / "opera" / "x"),
        fill(sandbox.home / "snap" / "firefox" / "common" / ".cache" / "mozilla" / "firefox" / "x"),
    ]
    kept = [
        fill(cache / "pip" / "x"),
        fill(cache / "mozilla" / "other" / "x"),
        fill(sandbox.home / ".mozilla" / "firefox" / "p.default" / "places.sqlite"),
        fill(sandbox.home / ".config" / "google-chrome" / "Default" / "Cookies"),
    ]
    run = run_script(SCRIPT, EVERYTHING)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)
    assert all(path.parent.is_dir() for path in gone)  # a cache keeps its folders
    assert run.result["files_removed"] == len(gone)


def test_xdg_cache_home_is_honoured(
    run_script: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(sandbox.root / "xdg"))
    moved = fill(sandbox.root / "xdg" / "chromium" / "x")
    not_used = fill(sandbox.home / ".cache" / "chromium" / "x")
    run_script(SCRIPT, EVERYTHING)
    assert not moved.exists() and not_used.exists()


ROTATED = (
    "syslog.1 syslog.2.gz app.log.12 dpkg.log.1.xz boot.log.old messages-20240131 btmp.1 a.zst a.bz2".split()
)
LIVE = (
    "syslog app.log log.192.0.2.7 log.10.0.0.1 php8.2 nginx-1234567 wtmp .gz 1 a.1b x.gzip system.journal "
    "a.1234 notes-99999999 Xorg.0.log"
).split()


def test_rotated_logs_only(run_script: Any, sandbox: Sandbox) -> None:
    for name in ROTATED + LIVE:
        fill(sandbox.log / "sub" / name)
    run = run_script(SCRIPT, EVERYTHING)
    assert sorted(path.name for path in (sandbox.log / "sub").iterdir()) == sorted(LIVE)
    assert run.result["files_removed"] == len(ROTATED)
    assert run.result["skipped"] == {"live_logs": len(LIVE)}


@pytest.mark.parametrize("switch", ["clear_temp", "clear_cache", "clear_logs"])
def test_each_switch_turns_its_part_off(run_script: Any, sandbox: Sandbox, switch: str) -> None:
    files = {
        "clear_temp": fill(sandbox.temp / "x"),
        "clear_cache": fill(sandbox.home / ".cache" / "chromium" / "x"),
        "clear_logs": fill(sandbox.log / "x.gz"),
    }
    run_script(SCRIPT, {**EVERYTHING, switch: False})
    assert {name for name, path in files.items() if path.exists()} == {switch}


def test_dry_run_removes_nothing_and_counts_the_same(
    run_script: Any, sandbox: Sandbox, sentinel: Path
) -> None:
    fill(sandbox.temp / "a" / "b")
    fill(sandbox.log / "x.gz")
    (sandbox.temp / "link").symlink_to(sentinel)
    before = fingerprint(sandbox.temp), fingerprint(sandbox.log)
    dry = run_script(SCRIPT, {**EVERYTHING, "dry_run": True}).result
    assert (fingerprint(sandbox.temp), fingerprint(sandbox.log)) == before
    assert (dry["files_removed"], dry["space_freed_bytes"], dry["space_freed_gb"]) == (0, 0, 0)
    assert all(line.startswith(("WOULD CLEAN: ", "NOTHING TO CLEAN: ")) for line in dry["actions_performed"])
    real = run_script(SCRIPT, EVERYTHING).result
    assert (dry["would_remove_files"], dry["would_free_bytes"]) == (
        real["files_removed"],
        real["space_freed_bytes"],
    )
    assert real["files_removed"] == 2 and real["would_free_bytes"] == 0


def test_reports_the_free_space(run_script: Any, sandbox: Sandbox) -> None:
    low = run_script(SCRIPT, {"min_free_space_gb": 0}).result
    high = run_script(SCRIPT, {"min_free_space_gb": 10**9}).result
    assert (low["min_free_space_met"], high["min_free_space_met"]) == (True, False)
    assert high["min_free_space_gb"] == 10**9
    expected = shutil.disk_usage(sandbox.temp).free / 1024**3
    assert low["free_space_after_gb"] == pytest.approx(expected, abs=2)
    assert low["free_space_before_gb"] == pytest.approx(expected, abs=2)


def test_special_files_and_locks_stay(run_script: Any, sandbox: Sandbox) -> None:
    os.mkfifo(sandbox.temp / "fifo")
    server = socket.socket(socket.AF_UNIX)
    os_path = os.open(sandbox.temp, os.O_RDONLY)
    try:  # by descriptor, since the path of a socket must be short
        server.bind(f"/proc/self/fd/{os_path}/socket")
    finally:
        os.close(os_path)
        server.close()
    fill(sandbox.temp / ".X0-lock")
    fill(sandbox.temp / "systemd-private-abc" / "x")
    run = run_script(SCRIPT, EVERYTHING)
    assert run.result["files_removed"] == 0
    assert run.result["skipped"] == {"special_files": 2, "in_use": 2}
    assert len(list(sandbox.temp.iterdir())) == 4


def test_names_that_are_not_text_are_removed_and_reported_as_text(
    run_script: Any, load: Any, sandbox: Sandbox
) -> None:
    name = os.fsencode(sandbox.temp) + b"/\xff\xfe-rf"
    with open(name, "wb"):
        pass
    assert run_script(SCRIPT, EVERYTHING).result["files_removed"] == 1
    assert load("disk_cleanup").printable(os.fsdecode(name)).endswith("\ufffd\ufffd-rf")


@pytest.mark.parametrize("value", ["/", "/etc", "/home", "..", "home", "home/.."])
def test_a_root_on_a_system_folder_or_a_home_is_refused(
    run_script: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TMPDIR", value if value.startswith("/") else str(sandbox.root / value))
    fill(sandbox.home / "document")
    run = run_script(SCRIPT, {**EVERYTHING, "dry_run": True, "clear_cache": False, "clear_logs": False})
    assert run.result["would_remove_files"] == 0
    assert len(run.result["refused_roots"]) == 1


def test_an_unreadable_folder_is_counted_and_the_rest_goes_on(load: Any, sandbox: Sandbox) -> None:
    module = load("disk_cleanup")
    fill(sandbox.temp / "locked" / "x")
    fill(sandbox.temp / "open" / "x")
    real = module.open_directory

    def open_directory(name: str, parent: int | None = None) -> int:
        if name == "locked":
            raise PermissionError(13, "denied")
        return real(name, parent)

    module.open_directory = open_directory
    result = module.clean_up(module.read_parameters(["", '{"min_age_hours": 0}'], module.PARAMETERS))
    assert result["files_removed"] == 1
    assert result["errors"] == [{"path": str(sandbox.temp / "locked")[-200:], "error": "EACCES"}]
    assert result["errors_total"] == 1


def test_the_list_of_errors_is_bounded(load: Any) -> None:
    module = load("disk_cleanup")
    sweep = module.Sweep(0.0, True)
    for number in range(1000):
        sweep._report("x" * 5000 + str(number), PermissionError(13, "denied"))
    assert sweep.errors_total == 1000
    assert len(sweep.errors) == module.ERRORS_MAX
    assert all(len(error["path"]) <= 200 for error in sweep.errors)


def test_other_people_keep_their_files(load: Any, sandbox: Sandbox) -> None:
    module = load("disk_cleanup")
    kept = fill(sandbox.temp / "folder" / "theirs")
    for user, removed in ((os.geteuid() + 4711, 0), (0, 1)):
        sweep = module.Sweep(time.time(), False, {"temp": module.Tally()}, _user=user)
        sweep.clean(module.Root("temp", os.path.realpath(sandbox.temp)))
        assert sweep.tallies["temp"].files == removed
        assert sweep.skipped["other_owners"] == 1 - removed
        assert kept.parent.exists() is (removed == 0)


def test_a_deep_tree_is_left_below_the_limit(run_script: Any, sandbox: Sandbox) -> None:
    folder = sandbox.temp
    for _ in range(100):
        folder = folder / "d"
    fill(folder / "x")
    run = run_script(SCRIPT, EVERYTHING)
    assert run.result["skipped"] == {"too_deep": 1}
    assert run.exit_code == 0


def test_overlapping_roots_count_once(
    run_script: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(sandbox.temp))
    size = blocks(fill(sandbox.temp / "chromium" / "x"))
    run = run_script(SCRIPT, {**EVERYTHING, "dry_run": True})
    assert (run.result["would_remove_files"], run.result["would_free_bytes"]) == (1, size)


# --- Races ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_folder_swapped_for_a_link_leads_nowhere(
    load: Any, sandbox: Sandbox, sentinel: Path, moment: str
) -> None:
    """Swaps exactly between the look at the folder and its opening, or right after it was opened."""
    module = load("disk_cleanup")
    victim = fill(sandbox.temp / "victim" / "deep" / "precious.gz").parent.parent
    real = module.open_directory

    def swap() -> None:
        victim.rename(sandbox.root / "aside")
        victim.symlink_to(sentinel)

    def open_directory(name: str, parent: int | None = None) -> int:
        if name == "victim" and moment == "before":
            swap()
        descriptor = real(name, parent)
        if name == "victim" and moment == "after":
            swap()
        return descriptor

    module.open_directory = open_directory
    result = module.clean_up(module.read_parameters(["", '{"min_age_hours": 0}'], module.PARAMETERS))
    assert result["skipped"].get("swapped", 0) == (1 if moment == "before" else 0)
    assert victim.is_symlink()


SWAPPER = """
import os, sys
folder, aside, target = sys.argv[1:]
while True:
    try:
        os.makedirs(folder, exist_ok=True)
        open(os.path.join(folder, "precious"), "w").close()
        os.rename(folder, aside)
        os.symlink(target, folder)
        os.unlink(folder)
        os.rename(aside, folder)
    except OSError:  # the clean-up was quicker
        try:
            os.rename(aside, folder)
        except OSError:
            pass
"""


def test_a_swapper_never_reaches_the_sentinel(load: Any, sandbox: Sandbox, sentinel: Path) -> None:
    module = load("disk_cleanup")
    parameters = module.read_parameters(["", '{"min_age_hours": 0}'], module.PARAMETERS)
    fill(sandbox.temp / "victim" / "precious")
    arguments = [str(sandbox.temp / "victim"), str(sandbox.root / "aside"), str(sentinel)]
    swapper = subprocess.Popen([sys.executable, "-IS", "-c", SWAPPER, *arguments])
    rounds, met = 0, 0
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end and swapper.poll() is None:
            result = module.clean_up(parameters)
            rounds += 1
            met += sum(result["skipped"].get(name, 0) for name in ("swapped", "symbolic_links", "vanished"))
    finally:
        swapper.kill()
        swapper.wait()
    assert swapper.returncode == -9, "the swapper ended early"
    assert rounds > 100 and met > 0, f"the race was not run: {rounds} rounds, {met} meetings"


# --- Mounts ---------------------------------------------------------------------------------------


def test_never_crosses_a_mount(request: pytest.FixtureRequest, sandbox: Sandbox, sentinel: Path) -> None:
    """A bind mount of the same file system, which the device number alone would not show, and a tmpfs."""
    if request.config.getoption("--no-mounts"):
        pytest.skip("--no-mounts")
    unshare = shutil.which("unshare", path=os.defpath + ":/usr/sbin:/sbin")
    mount = shutil.which("mount", path=os.defpath + ":/usr/sbin:/sbin")
    assert os.geteuid() == 0 and unshare and mount, "this test needs root and util-linux, or --no-mounts"
    for name in ("bound", "other", "plain"):
        fill(sandbox.temp / name / "x")
    shell = f'{mount} --bind "$1" "$2" && {mount} -t tmpfs none "$3" && : >"$3/y" && shift 3 && exec "$@"'
    paths = [str(sentinel), str(sandbox.temp / "bound"), str(sandbox.temp / "other")]
    run = run_by_hand(SCRIPT, EVERYTHING, {}, prefix=(unshare, "-m", "/bin/sh", "-c", shell, "sh", *paths))
    assert run.result["skipped"] == {"other_mounts": 2}
    assert run.result["files_removed"] == 1


# --- The context of a run -------------------------------------------------------------------------


def test_the_context_can_ask_for_a_dry_run(run_with_context: Callable[..., Run], sandbox: Sandbox) -> None:
    kept = fill(sandbox.temp / "x")
    run = run_with_context(SCRIPT, EVERYTHING, {"dry_run": True})
    assert kept.exists()
    assert run.result["dry_run"] is True


def test_a_cancelled_run_stops_and_says_what_it_did(
    run_with_context: Callable[..., Run], sandbox: Sandbox
) -> None:
    for number in range(20):
        fill(sandbox.temp / str(number), 10)
    run = run_with_context(SCRIPT, EVERYTHING, {"looks_before_cancel": 5})
    assert (run.exit_code, run.error_code) == (1, "cancelled")
    assert run.result["files_removed"] == 5
    assert len(list(sandbox.temp.iterdir())) == 15


def test_a_run_near_its_deadline_reports_in_time(
    run_with_context: Callable[..., Run], sandbox: Sandbox
) -> None:
    fill(sandbox.temp / "x")
    run = run_with_context(SCRIPT, EVERYTHING, {"remaining": 1.0})
    assert run.exit_code == 0
    assert (run.result["stopped"], run.result["files_removed"]) == ("deadline", 0)


def test_progress_is_told(run_with_context: Callable[..., Run], sandbox: Sandbox) -> None:
    run = run_with_context(SCRIPT, {}, {})
    assert "progress 0.0 cleaning" in run.everything
    assert "progress 1.0 done" in run.everything


def test_a_ticket_selects_nothing(run_ticket: Any, sandbox: Sandbox) -> None:
    kept = fill(sandbox.temp / "new")
    run = run_ticket({"id": "T-1", "issue_text": '{"min_age_hours": 0} rm -rf /'}, "Device Slow")
    assert run.exit_code == 0
    assert kept.exists()


def test_no_descriptor_is_left_open(load: Any, sandbox: Sandbox) -> None:
    module = load("disk_cleanup")
    for number in range(30):
        fill(sandbox.temp / str(number) / "x")
    (sandbox.home / ".cache").mkdir()
    (sandbox.home / ".cache" / "opera").symlink_to(sandbox.temp)
    gc.collect()  # Garbage of other tests may hold descriptors, and be collected meanwhile.
    before = os.listdir("/proc/self/fd")
    module.clean_up(module.read_parameters(["", '{"min_age_hours": 0}'], module.PARAMETERS))
    assert len(os.listdir("/proc/self/fd")) == len(before)
