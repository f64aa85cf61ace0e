#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = []
#
# [tool.automation]
# category = "Device Slow"
# description = "Disk cleanup and optimization"
# timeout_seconds = 300
# memory_mb = 256
# isolation = "in-process"
# risk = "low"
# idempotent = true
#
# [tool.automation.parameters.min_free_space_gb]
# type = "number"
# default = 5
# minimum = 0
# description = "Free space that the disk should have afterwards; reported as met or not met"
#
# [tool.automation.parameters.clear_temp]
# type = "boolean"
# default = true
# description = "Remove old files from the temporary folders"
#
# [tool.automation.parameters.clear_cache]
# type = "boolean"
# default = true
# description = "Remove old files from the cache folders of known browsers"
#
# [tool.automation.parameters.clear_logs]
# type = "boolean"
# default = true
# description = "Remove old rotated logs; a live log is never touched"
#
# [tool.automation.parameters.min_age_hours]
# type = "number"
# default = 24
# minimum = 0
# description = "Only files that nobody created, wrote, renamed or moved for this long are removed"
#
# [tool.automation.parameters.dry_run]
# type = "boolean"
# default = false
# description = "Report what would be freed and remove nothing"
# ///
"""Frees disk space in places that are safe to clean, and reports what that really freed.

Run it by hand:

    python3 disk_cleanup.py '{"dry_run": true}'

Only files below an allow-listed root can be removed. The walk goes by directory descriptors, one
name at a time: no path is resolved twice, so a folder that is swapped for a symbolic link while
the script runs leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

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
    "min_free_space_gb": {"type": "number", "default": 5, "minimum": 0},
    "clear_temp": {"type": "boolean", "default": True},
    "clear_cache": {"type": "boolean", "default": True},
    "clear_logs": {"type": "boolean", "default": True},
    "min_age_hours": {"type": "number", "default": 24, "minimum": 0},
    "dry_run": {"type": "boolean", "default": False},
}

GIB = 1024**3
DEPTH_MAX = 64  # one descriptor stays open a level, and descriptors are shared with the host
ERRORS_MAX = 20
SECONDS_RESERVED = 5.0  # left for the report when the run has a deadline

TITLES = {"temp": "temp files", "cache": "browser cache", "logs": "rotated logs"}

BROWSER_CACHES = (  # below XDG_CACHE_HOME or ~/.cache
    "google-chrome",
    "google-chrome-beta",
    "google-chrome-unstable",
    "chromium",
    "mozilla/firefox",
    "microsoft-edge",
    "microsoft-edge-beta",
    "microsoft-edge-dev",
    "BraveSoftware/Brave-Browser",
    "opera",
)
PACKAGED_BROWSER_CACHES = (  # below HOME: snap and flatpak keep their own
    "snap/firefox/common/.cache/mozilla/firefox",
    "snap/chromium/common/.cache/chromium",
    ".var/app/org.mozilla.firefox/cache/mozilla/firefox",
    ".var/app/com.google.Chrome/cache/google-chrome",
    ".var/app/org.chromium.Chromium/cache/chromium",
    ".var/app/com.microsoft.Edge/cache/microsoft-edge",
    ".var/app/com.brave.Browser/cache/BraveSoftware/Brave-Browser",
)
MACOS_BROWSER_CACHES = (  # below HOME
    "Library/Caches/Google/Chrome",
    "Library/Caches/Chromium",
    "Library/Caches/Firefox",
    "Library/Caches/Microsoft Edge",
    "Library/Caches/BraveSoftware/Brave-Browser",
    "Library/Caches/com.operasoftware.Opera",
)

# A number counts only after a letter: `log.192.0.2.7` and `php8.2` are live names, `syslog.1` is not.
ROTATED_LOG = re.compile(r".+(?:\.(?:gz|xz|bz2|zst|old)|[^0-9.]\.[0-9]{1,3}|-(?:19|20)[0-9]{6})")

# Locks and folders in /tmp that are old by nature and still in use.
IN_USE = re.compile(r"\.X[0-9]+-lock|\.(?:X11|ICE|XIM|font)-unix|(?:systemd|snap)-private-.*|lost\+found")

NEVER_A_ROOT = frozenset(
    "/ /bin /boot /dev /etc /home /lib /lib64 /opt /proc /root /run /sbin /srv /sys /usr /var".split()
    + "/Applications /Library /System /Users /private /private/etc /private/var".split()
)


@dataclass(frozen=True)
class Root:
    """A place that may be cleaned: `base` comes from the system, `inside` is opened name by name."""

    kind: str
    base: str
    inside: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return os.path.join(self.base, *self.inside)


@dataclass
class Tally:
    files: int = 0
    directories: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Folder:
    """An open directory of the walk."""

    kind: str
    path: str  # for messages only, never opened
    descriptor: int
    mount: tuple[int, str]
    depth: int = 0


@dataclass
class Sweep:
    """One pass over the roots: the rules that it obeys and what it has seen so far."""

    newest_allowed: float
    dry_run: bool
    tallies: dict[str, Tally] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    errors: list[dict[str, str]] = field(default_factory=list)
    errors_total: int = 0
    stopped: str | None = None
    _user: int = field(default_factory=os.geteuid)
    _visited: set[tuple[int, int]] = field(default_factory=set)
    _links_removed: Counter[tuple[int, int]] = field(default_factory=Counter)

    def clean(self, root: Root) -> None:
        try:
            directory = open_root(root)
        except OSError as error:
            self._report(root.path, error)
            return
        try:
            if self._is_new(directory):
                self._walk(Folder(root.kind, root.path, directory, mount_of(directory)))
        finally:
            os.close(directory)

    def _walk(self, folder: Folder) -> None:
        try:
            with os.scandir(folder.descriptor) as entries:
                for entry in entries:
                    if self._must_stop():
                        return
                    self._visit(folder, entry.name)
        except OSError as error:
            self._report(folder.path, error)

    def _visit(self, folder: Folder, name: str) -> None:
        try:
            info = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
            if folder.kind == "temp" and IN_USE.fullmatch(name):
                self.skipped["in_use"] += 1
            elif stat.S_ISDIR(info.st_mode):
                self._descend(folder, name, info)
            elif self._is_removable(folder.kind, name, info):
                self._remove(folder, name, info)
        except FileNotFoundError:
            self.skipped["vanished"] += 1
        except OSError as error:
            self._report(os.path.join(folder.path, name), error)

    def _descend(self, parent: Folder, name: str, info: os.stat_result) -> None:
        if parent.depth >= DEPTH_MAX:
            self.skipped["too_deep"] += 1
            return
        try:
            directory = open_directory(name, parent.descriptor)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            self.skipped["swapped"] += 1  # it was a directory a moment ago
            return
        try:
            if mount_of(directory) != parent.mount:
                self.skipped["other_mounts"] += 1
                return
            if not self._is_new(directory):
                return
            path = os.path.join(parent.path, name)
            self._walk(Folder(parent.kind, path, directory, parent.mount, parent.depth + 1))
        finally:
            os.close(directory)
        # Caches and logs keep their folders: the program that made them expects them.
        if parent.kind == "temp" and not self.dry_run and self._is_ours(info) and self._is_old(info):
            self._remove_if_empty(parent, name)

    def _is_new(self, directory: int) -> bool:
        """Says whether this sweep sees the directory for the first time: roots may overlap."""
        info = os.fstat(directory)
        seen_before = (info.st_dev, info.st_ino) in self._visited
        self._visited.add((info.st_dev, info.st_ino))
        return not seen_before

    def _is_removable(self, kind: str, name: str, info: os.stat_result) -> bool:
        reason = None
        if stat.S_ISLNK(info.st_mode):
            reason = "symbolic_links"
        elif not stat.S_ISREG(info.st_mode):
            reason = "special_files"
        elif kind == "logs" and not ROTATED_LOG.fullmatch(name):
            reason = "live_logs"
        elif not self._is_ours(info):
            reason = "other_owners"
        elif not self._is_old(info):
            reason = "too_new"
        if reason:
            self.skipped[reason] += 1
        return reason is None

    def _is_ours(self, info: os.stat_result) -> bool:
        return self._user in (0, info.st_uid)

    def _is_old(self, info: os.stat_result) -> bool:
        # The change time too: an archive that was just unpacked carries old modification times.
        # Removing one name of a hard-linked file renews it, so a second name goes by the first.
        if self._links_removed[info.st_dev, info.st_ino]:
            return True
        return max(info.st_mtime, info.st_ctime) <= self.newest_allowed

    def _remove(self, folder: Folder, name: str, info: os.stat_result) -> None:
        identity = (info.st_dev, info.st_ino)
        names_left = info.st_nlink
        if self.dry_run:
            names_left -= self._links_removed[identity]
        else:
            os.unlink(name, dir_fd=folder.descriptor)
        if info.st_nlink > 1:
            self._links_removed[identity] += 1
        tally = self.tallies[folder.kind]
        tally.files += 1
        if names_left == 1:  # the blocks come back with the last name only
            tally.bytes += info.st_blocks * 512

    def _remove_if_empty(self, parent: Folder, name: str) -> None:
        try:
            os.rmdir(name, dir_fd=parent.descriptor)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY):
                raise
        else:
            self.tallies[parent.kind].directories += 1

    def _must_stop(self) -> bool:
        if self.stopped is None:
            left = ctx.remaining()
            if ctx.cancelled:
                self.stopped = "cancelled"
            elif left is not None and left < SECONDS_RESERVED:
                self.stopped = "deadline"
        return self.stopped is not None

    def _report(self, path: str, error: OSError) -> None:
        self.errors_total += 1
        if len(self.errors) < ERRORS_MAX:
            reason = errno.errorcode.get(error.errno or 0, "unknown")
            self.errors.append({"path": printable(path), "error": reason})


def printable(path: str) -> str:
    """File names are bytes; the result must be valid Unicode of a bounded length."""
    return os.fsencode(path).decode("utf-8", "replace").replace("\0", "")[-200:]


def open_directory(name: str, parent: int | None = None) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


def open_root(root: Root) -> int:
    """Opens a root from `/` down, so that no name on the way can be a link by then."""
    directory = open_directory("/")
    for name in [*root.base.split("/"), *root.inside]:
        if name:
            try:
                below = open_directory(name, directory)
            finally:
                os.close(directory)
            directory = below
    return directory


def mount_of(directory: int) -> tuple[int, str]:
    """Identifies the mount; a bind mount has its parent's device, so Linux is asked for its number."""
    with contextlib.suppress(OSError), open(f"/proc/self/fdinfo/{directory}", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("mnt_id:"):
                return os.fstat(directory).st_dev, line.split()[1]
    return os.fstat(directory).st_dev, ""


def temp_bases() -> list[str]:
    own = os.environ.get("TMPDIR")  # who sets it has moved the temporary folder
    return [own] if own else [tempfile.gettempdir(), "/var/tmp"]


def cache_roots(home: str) -> Iterator[Root]:
    if sys.platform == "darwin":
        places = [(home, place) for place in MACOS_BROWSER_CACHES]
    else:
        configured = os.environ.get("XDG_CACHE_HOME")
        caches = [(configured, name) if configured else (home, f".cache/{name}") for name in BROWSER_CACHES]
        places = caches + [(home, place) for place in PACKAGED_BROWSER_CACHES]
    for base, place in places:
        yield Root("cache", os.path.realpath(base), tuple(place.split("/")))


def wanted_roots(parameters: dict[str, Any]) -> Iterator[Root]:
    home = os.path.expanduser("~")
    if parameters["clear_temp"]:
        for base in temp_bases():
            yield Root("temp", os.path.realpath(base))
    if parameters["clear_cache"]:
        yield from cache_roots(home)
    if parameters["clear_logs"]:
        yield Root("logs", os.path.realpath(os.environ.get("AUTOMATION_LOG_ROOT") or "/var/log"))


def is_safe(root: Root) -> bool:
    """An environment variable may move a root, but never onto a system folder or a whole home."""
    home = os.path.realpath(os.path.expanduser("~"))
    holds_home = os.path.commonpath([root.path, home]) == root.path
    return root.path not in NEVER_A_ROOT and not holds_home


def may_exist(root: Root) -> bool:
    """Leaves out browsers that are not installed, but not a folder that cannot be looked at."""
    try:
        os.lstat(root.path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def free_bytes(path: str) -> int:
    file_system = os.statvfs(path)
    return file_system.f_bavail * file_system.f_frsize


def tightest(roots: list[Root]) -> str:
    """Names the root whose file system has the least room: that one makes the device slow."""
    return min((root.base for root in roots if os.path.isdir(root.base)), key=free_bytes, default="/")


def human(size: int) -> str:
    value = float(size)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"


def actions(sweep: Sweep) -> list[str]:
    verb = "WOULD CLEAN" if sweep.dry_run else "CLEANED"
    lines = []
    for kind, tally in sweep.tallies.items():
        done = f"{verb}: {TITLES[kind]} ({tally.files} files, {human(tally.bytes)})"
        lines.append(done if tally.files else f"NOTHING TO CLEAN: {TITLES[kind]}")
    return lines


def gib(size: int) -> float:
    return round(size / GIB, 3)


def report(sweep: Sweep, minimum_gb: float, place: str, before: int, refused: list[str]) -> dict[str, Any]:
    freed = sum(tally.bytes for tally in sweep.tallies.values())
    files = sum(tally.files for tally in sweep.tallies.values())
    removed = 0 if sweep.dry_run else freed
    after = free_bytes(place)
    return {
        "actions_performed": actions(sweep),
        "space_freed_gb": gib(removed),
        "space_freed_bytes": removed,
        "would_free_bytes": freed if sweep.dry_run else 0,
        "files_removed": 0 if sweep.dry_run else files,
        "would_remove_files": files if sweep.dry_run else 0,
        "directories_removed": sum(tally.directories for tally in sweep.tallies.values()),
        "file_system": printable(place),
        "free_space_before_gb": gib(before),
        "free_space_after_gb": gib(after),
        "min_free_space_gb": minimum_gb,
        "min_free_space_met": after >= minimum_gb * GIB,
        "dry_run": sweep.dry_run,
        "skipped": dict(sweep.skipped),
        "refused_roots": refused,
        "errors": sweep.errors,
        "errors_total": sweep.errors_total,
        "stopped": sweep.stopped,
    }


def clean_up(parameters: dict[str, Any]) -> dict[str, Any]:
    if os.unlink not in os.supports_dir_fd or os.scandir not in os.supports_fd:
        raise Failure("unsupported_platform", "this system cannot remove files by directory descriptor")
    wanted = list(wanted_roots(parameters))
    refused = [printable(root.path) for root in wanted if not is_safe(root)]
    roots = [root for root in wanted if is_safe(root) and may_exist(root)]
    place = tightest(roots)
    before = free_bytes(place)
    sweep = Sweep(
        newest_allowed=time.time() - parameters["min_age_hours"] * 3600,
        dry_run=parameters["dry_run"] or ctx.dry_run,
        tallies={root.kind: Tally() for root in wanted},
    )
    for done, root in enumerate(roots):
        ctx.progress(done / len(roots), f"cleaning {printable(root.path)}")
        sweep.clean(root)
        if sweep.stopped:
            break
    result = report(sweep, parameters["min_free_space_gb"], place, before, refused)
    if sweep.stopped == "cancelled":
        raise Failure("cancelled", "the run was cancelled; what had been removed by then is listed", **result)
    ctx.progress(1.0, "done")
    return result


def main() -> int:
    try:
        return finish({"success": True, **clean_up(read_parameters(sys.argv, PARAMETERS))}, 0)
    except Failure as failure:
        return finish_failed(failure)


if __name__ == "__main__":
    sys.exit(main())
