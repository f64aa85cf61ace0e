"""Runs helpdesk automation scripts in-process, safely and durably.

A script that ran and failed is data: the verbs return its `Execution`, whose `status` is `"failed"`. They raise an
`AutomationError` when the engine could not do its part, and a `TypeError` for an argument of a wrong type. While a
verb waits, other threads run. Ctrl-C interrupts the wait in the main thread, never the run.

Example:
    >>> with Automation(scripts="scripts", storage="sqlite://automation.db") as helpdesk:
    ...     run = helpdesk.manual("disk_cleanup.py", {"dry_run": True})
    ...     print(run.status, run.parsed_output)
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from os import PathLike
from subprocess import CompletedProcess
from types import TracebackType
from typing import Any, Literal, final, overload, type_check_only

__version__: str

_Status = Literal["starting", "running", "completed", "failed", "cancelled"]
_Concern = Literal["abandoned", "crashed", "contaminated", "memory_limit"]

@final
class Automation:
    """Runs scripts for tickets, and by name. One handle serves every thread of its process.

    As a context manager it shuts down at the end of the block: it gives runs 30 seconds to end, or none when the
    block is left by `KeyboardInterrupt` or `SystemExit`. A handle that was never shut down is at the end of the
    interpreter.
    """

    def __new__(
        cls,
        scripts: str | PathLike[str],
        storage: str = "memory:",
        *,
        secrets: dict[str, str] | None = None,
        workers: int | None = None,
        executions_max: int | None = None,
        queue_max: int | None = None,
        isolated: bool = True,
        isolate_all: bool = False,
        spool: str | PathLike[str] | None = None,
        retention_days: int | None = None,
        retention_failed_days: int | None = None,
    ) -> Automation:
        """Loads the scripts, opens the storage and starts the workers.

        Args:
            scripts: The folder of the scripts.
            storage: Where executions are recorded: `memory:` forgets them at the end, `sqlite://FILE` and
                `sqlite:///ABSOLUTE/FILE` keep them in a file that no other handle may use at the same time.
            secrets: What scripts get from `ctx.secret(name)`; names are compared without case. The values are
                masked in everything that is recorded.
            workers: Scripts that run at once.
            executions_max: Runs that may be dispatched at once.
            queue_max: Accepted runs that may wait; the next one is refused.
            isolated: Whether there is an executor for scripts that say `isolation = "process"`. It runs them on
                `sys.executable` with the present `sys.path`, and starts no process before it is needed. Without
                it, and where `sys.executable` is no Python interpreter, such scripts are refused.
            isolate_all: Whether every script runs there, whatever it says. Refused where there is no such executor.
            retention_days: Days (UTC) for which ended runs are kept. Default: for ever. Statistics keep what they counted.
            retention_failed_days: The same for failed runs. Default: as long as others.
            spool: The file that keeps the ends of runs which the storage does not take, until it does or until the next
                start. None is the file with `.spool` added to the name, where the storage is a file, and else no file.

        Raises:
            InvalidRequestError: A setting can't be used, or the folder can't be read.
            StorageError: The file can't be used.
            ExecutorError: Python can't be prepared for runs.
        """

    def execute(
        self,
        ticket: dict[str, Any],
        classification: dict[str, Any],
        *,
        actor: str | None = None,
        idempotency_key: str | None = None,
    ) -> Execution:
        """Runs the script that the ticket's classification selects, and waits for its end.

        Args:
            ticket: Has an `id` of 1 to 128 visible characters, and whatever else the script may want to know.
            classification: Has `category` (str), `automation_possible` (bool), and `confidence` (0 to 1) if known.
            actor: Who asks.
            idempotency_key: Under which at most one execution is recorded: whoever asks again with it, while it runs or
                later, is answered with that one. 1 to 255 visible ASCII characters; lives as long as the row.

        Returns:
            The run at its end, whether it completed or failed.

        Raises:
            InvalidRequestError: The ticket, the classification or the actor is malformed.
            AutomationNotPossibleError: The classification says no.
            NoScriptForCategoryError: No script serves the category.
            ConflictError: Another request was made under the same key.
            InvalidParametersError: The script has a parameter without a default.
            OverloadedError: Every place is taken and the queue is full.
            ClosedError: The handle was shut down.
            StorageError: The run could not be recorded.
            ExecutorError: The script could not be run.
        """

    def manual(
        self,
        script_name: str,
        parameters: dict[str, Any] | None = None,
        *,
        ticket_id: str | None = None,
        actor: str | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> Execution:
        """Runs a script by its name, and waits for its end.

        Args:
            script_name: For instance `disk_cleanup.py`.
            parameters: What the script's schema asks for; nothing is coerced, defaults are filled in.
            ticket_id: The ticket that the run serves. Default: the execution's own id.
            actor: Who asks.
            dry_run: Whether the script is to change nothing.
            idempotency_key: Under which at most one execution is recorded: whoever asks again with it, while it runs or
                later, is answered with that one. 1 to 255 visible ASCII characters; lives as long as the row.

        Returns:
            The run at its end, whether it completed or failed.

        Raises:
            InvalidRequestError: The ticket's id or the actor is malformed.
            ScriptNotFoundError: No script has this name.
            ConflictError: Another request was made under the same key.
            InvalidScriptError: The script is not fit to run.
            InvalidParametersError: The parameters do not fit the script's schema.
            UnsupportedError: A dry run of a script that has no `dry_run` parameter.
            OverloadedError: Every place is taken and the queue is full.
            ClosedError: The handle was shut down.
            StorageError: The run could not be recorded.
            ExecutorError: The script could not be run.
        """

    def test(self, script_name: str | None = None, *, actor: str | None = None) -> Execution:
        """Makes a dry run through the whole path, and waits for its end. It is never counted.

        Args:
            script_name: Default: the first script that has a `dry_run` parameter.
            actor: Who asks.

        Raises:
            UnsupportedError: There is no such script.
            AutomationError: As `manual`.
        """

    def route(self, ticket: dict[str, Any], classification: dict[str, Any]) -> Route:
        """Returns which script would run for a ticket, and why, without running it.

        Raises:
            InvalidRequestError: The ticket or the classification is malformed.
            AutomationNotPossibleError: The classification says no.
            NoScriptForCategoryError: No script serves the category.
        """

    def get(self, id: str) -> Execution:
        """Returns an execution.

        Raises:
            InvalidRequestError: It is no execution's id.
            ExecutionNotFoundError: No execution has it.
            StorageError: The storage does not answer.
        """

    def cancel(self, id: str, actor: str | None = None) -> Execution:
        """Asks an execution to end, waits for its terminal status, and returns it.

        An execution that had ended by itself keeps its status; one that could not be stopped is `failed` and
        `still_running`.

        Raises:
            InvalidRequestError: It is no execution's id.
            ExecutionNotFoundError: No execution has it.
            ConflictError: Another process holds the run.
            StorageError: The storage does not answer.
        """

    def retry(self, id: str, *, actor: str | None = None) -> Execution:
        """Runs once more what an execution ran that did not complete, with the same parameters, and waits for the end.

        The new run is the next attempt of the same chain, at the script's present version. Of several who ask at the
        same time one run answers all.

        Raises:
            InvalidRequestError: It is no execution's id.
            ExecutionNotFoundError: No execution has it.
            ConflictError: It is open or completed, or nobody knows what it did and its script is not idempotent.
            InvalidParametersError: The script takes other parameters now, or took secret ones, which are not kept.
            ScriptNotFoundError: Its script is gone.
            StorageError: The run could not be recorded.
        """

    def logs(
        self,
        ticket_id: str,
        *,
        script_name: str | None = None,
        statuses: Sequence[_Status] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Returns a page of a ticket's executions, newest first.

        Args:
            ticket_id: The ticket.
            script_name: Of this script only.
            statuses: With one of these statuses only.
            limit: Executions at most, 1 to 500.
            cursor: The `next` of the page before.

        Raises:
            InvalidRequestError: An argument can't be used.
            TicketNotFoundError: No execution is recorded for the ticket.
            StorageError: The storage does not answer.
        """

    def executions(
        self,
        *,
        ticket_id: str | None = None,
        script_name: str | None = None,
        statuses: Sequence[_Status] | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        with_output: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Returns a page of the executions that fit, of any ticket, newest first.

        Args:
            ticket_id: Of this ticket only.
            script_name: Of this script only.
            statuses: With one of these statuses only.
            actor: Asked for by this actor only.
            since: Accepted at this time or later; with a time zone.
            until: Accepted before this time; with a time zone.
            with_output: With `output`, `stderr` and `parsed_output`, which are empty otherwise.
            limit: Executions at most, 1 to 500.
            cursor: The `next` of the page before.

        Raises:
            InvalidRequestError: An argument can't be used.
            StorageError: The storage does not answer.
        """

    def prune(self, before: date, *, statuses: Sequence[_Status] | None = None) -> int:
        """Deletes executions that ended before a day (UTC), with their events; returns how many.

        The statistics keep what they counted of them. Open executions are never deleted.

        Args:
            before: The first day that is kept; today at the latest.
            statuses: With one of these terminal statuses only.

        Raises:
            InvalidRequestError: An argument can't be used.
            StorageError: The storage does not answer; what went before stays deleted.
        """

    def back_up(self, path: str | PathLike[str]) -> int:
        """Copies everything that is recorded into a new file, beside runs; returns its size in bytes.

        Args:
            path: The new file.

        Raises:
            UnsupportedError: The storage is not SQLite; PostgreSQL has `pg_dump`.
            InvalidRequestError: The file is there already, or its folder can't be written.
            StorageError: The copy failed; no file is left.
        """

    def stats(self, *, since: date | None = None, script_name: str | None = None) -> Stats:
        """Returns the statistics.

        Args:
            since: Of executions that ended on this day (UTC) or later.
            script_name: Of this script only.

        Raises:
            StorageError: The storage does not answer.
        """

    def scripts(self) -> list[Script]:
        """Returns the scripts that can run, by name."""

    def invalid_scripts(self) -> list[InvalidScript]:
        """Returns the scripts that can't run, by name, and why."""

    def script(self, name: str) -> Script:
        """Returns a script that can run.

        Raises:
            ScriptNotFoundError: No script has this name.
            InvalidScriptError: The script is not fit to run.
        """

    def quarantined(self) -> list[Quarantined]:
        """Returns the script versions that are kept out of the process, by script: a run of theirs could not be
        stopped, ended the process, changed it for all others, or met its memory limit where Python may not survive
        that. Other versions of the same scripts are not affected.

        Raises:
            StorageError: What is recorded could not be read since the start.
        """

    def release(self, script: str, *, actor: str | None = None) -> list[Quarantined]:
        """Releases a script from quarantine. It is kept out again by the next run that is a cause.

        Args:
            script: The script's name, for every version of it, or one version.
            actor: Who asks.

        Returns:
            What is released.

        Raises:
            InvalidRequestError: The actor is malformed.
            ScriptNotFoundError: No script has this name or version.
            ConflictError: The script is not in quarantine.
            StorageError: The release could not be recorded.
        """

    def validate(self, source: str, *, name: str = "script.py") -> Validation:
        """Says what is wrong or doubtful about a source, without executing, registering or keeping it.

        Args:
            source: The text of the script's file.
            name: The name that the file would have.

        Raises:
            ClosedError: The handle was shut down.
            ExecutorError: The source can't be inspected.
        """

    def reload(self) -> None:
        """Reads the scripts folder again. Runs that were accepted keep their version.

        Raises:
            UnsupportedError: The folder can't be read; the former scripts stay.
            ExecutorError: The scripts can't be inspected; the former ones stay.
        """

    def check(self) -> dict[str, Any]:
        """Returns how everything is: `ready`, `accepting`, `running`, `queued`, `spooled`, `storage`,
        `storage_error`, `quarantined`, and `executor` with the Python that runs the scripts. Never raises an `AutomationError` before a fork."""

    def shutdown(self, grace: float = 30.0) -> None:
        """Refuses further runs, waits up to `grace` seconds for the present ones, cancels the rest, and closes.

        Later calls do nothing.

        Raises:
            InvalidRequestError: `grace` is no number of seconds.
            StorageError: The storage could not be closed in good order.
            ExecutorError: Scripts could not be stopped.
        """

    def __enter__(self) -> Automation: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

@final
class Execution:
    """One recorded run. Times are aware `datetime`s in UTC, lengths of time are seconds."""

    @property
    def id(self) -> str:
        """A UUIDv7: ids sort by the time of acceptance."""

    @property
    def tenant_id(self) -> str:
        """Whose it is."""

    @property
    def ticket_id(self) -> str:
        """The ticket it serves; its own id when there is none."""

    @property
    def script_name(self) -> str:
        """The script."""

    @property
    def script_version(self) -> str:
        """SHA-256 of the script's source, in hex."""

    @property
    def trigger(self) -> Literal["ticket", "manual", "schedule", "test", "retry", "rollback"]:
        """What started it."""

    @property
    def execution_type(self) -> str:
        """`automated` for ticket runs, else the trigger."""

    @property
    def actor(self) -> str | None:
        """Who asked."""

    @property
    def parameters(self) -> dict[str, Any]:
        """What the script received: defaults filled in, secrets masked. Each access makes a new dictionary."""

    @property
    def dry_run(self) -> bool:
        """Whether the script was told to change nothing."""

    @property
    def status(self) -> _Status:
        """Where it stands."""

    @property
    def reason(self) -> str | None:
        """Why it stands there, for instance `timeout`, `exception` or `exit_code`."""

    @property
    def success(self) -> bool | None:
        """Whether it completed; `None` while it is open."""

    @property
    def started_at(self) -> datetime:
        """When it was accepted."""

    @property
    def completed_at(self) -> datetime | None:
        """When it became terminal."""

    @property
    def run_at(self) -> datetime | None:
        """Not to be dispatched before this time."""

    @property
    def priority(self) -> int:
        """Higher goes first."""

    @property
    def claimed_by(self) -> str | None:
        """The engine instance that holds it."""

    @property
    def lease_until(self) -> datetime | None:
        """Until when it is held."""

    @property
    def epoch(self) -> int:
        """Grows with each claim."""

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""

    @property
    def root_id(self) -> str | None:
        """The first execution of a chain of attempts."""

    @property
    def parent_id(self) -> str | None:
        """The execution that caused this one."""

    @property
    def idempotency_key(self) -> str | None:
        """The caller's key under which at most one execution exists."""

    @property
    def queue_time(self) -> float | None:
        """From dispatch to the script's first byte."""

    @property
    def duration(self) -> float | None:
        """From the script's first byte to its end."""

    @property
    def cpu_time(self) -> float | None:
        """Processor time, where it was measured."""

    @property
    def memory_peak_bytes(self) -> int | None:
        """Largest memory use, where it was measured."""

    @property
    def children(self) -> int | None:
        """Programs that it started, where they were counted."""

    @property
    def threads(self) -> int | None:
        """Threads that it started; `None` for a run in a process of its own, where they are not counted."""

    @property
    def output(self) -> str:
        """Standard output."""

    @property
    def stderr(self) -> str:
        """Standard error."""

    @property
    def error(self) -> str | None:
        """What went wrong, in a sentence."""

    @property
    def failure(self) -> Failure | None:
        """Why it failed; `None` unless its status is `failed`."""

    @property
    def parsed_output(self) -> dict[str, Any] | None:
        """The structured result, if there is one. Each access makes a new dictionary."""

    @property
    def exit_code(self) -> int | None:
        """The exit code, where there was one."""

    @property
    def truncated(self) -> bool:
        """Whether a stream was longer than what was kept."""

    @property
    def output_bytes(self) -> int:
        """Bytes that the script wrote to both streams."""

    @property
    def still_running(self) -> bool:
        """Whether the script could not be stopped and was still running when this was recorded."""

    @property
    def isolation(self) -> Literal["in-process", "process"]:
        """Where it ran; for one that waits, where it would run now."""

    @property
    def concern(self) -> _Concern | None:
        """Why this version of the script is kept out of the process since this run, if so."""

    def raise_for_status(self) -> Execution:
        """Returns the execution itself, unless it failed or was cancelled. An open one has done neither.

        Raises:
            ScriptFailedError: It failed or was cancelled.

        Example:
            >>> freed = helpdesk.manual("disk_cleanup.py").raise_for_status().parsed_output["space_freed_gb"]
        """

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes; times are ISO 8601."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Failure:
    """Why a run failed. As text it is the message."""

    @property
    def reason(self) -> str | None:
        """The cause in a word, for instance `timeout`, `exception` or `exit_code`."""

    @property
    def message(self) -> str:
        """The cause in a sentence."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Page(Sequence[Execution]):
    """A part of a list of executions: a sequence that knows where the next part begins."""

    @property
    def items(self) -> tuple[Execution, ...]:
        """The executions."""

    @property
    def next(self) -> str | None:
        """The cursor of the next page; `None` after the last row."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: int, /) -> Execution: ...
    @overload
    def __getitem__(self, key: slice, /) -> tuple[Execution, ...]: ...
    def __iter__(self) -> Iterator[Execution]: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Script:
    """A script that can run."""

    @property
    def name(self) -> str:
        """For instance `disk_cleanup.py`."""

    @property
    def version(self) -> str:
        """SHA-256 of the file's bytes, in hex."""

    @property
    def path(self) -> str:
        """The file from which it was read."""

    @property
    def category(self) -> str | None:
        """The category that selects it; `None` for a script that is run by name only."""

    @property
    def order(self) -> int:
        """Its place among the scripts of the category, lowest first."""

    @property
    def description(self) -> str:
        """What it does."""

    @property
    def parameters(self) -> dict[str, str]:
        """Each parameter's type, for instance `{"clear_temp": "boolean"}`."""

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the parameter object (draft 2020-12)."""

    @property
    def defaults(self) -> dict[str, Any]:
        """Each parameter's default, where it has one."""

    @property
    def output_schema(self) -> dict[str, Any] | None:
        """The JSON Schema (draft 2020-12) that its result keeps; `None` when it promises nothing."""

    @property
    def timeout(self) -> float:
        """Seconds from its first byte to its deadline."""

    @property
    def cpu_seconds(self) -> float | None:
        """Processor time it may use; `None`: no limit of its own."""

    @property
    def memory_mb(self) -> int:
        """Memory it may use, in MiB."""

    @property
    def output_kib(self) -> int:
        """KiB of each stream that are kept."""

    @property
    def children_max(self) -> int | None:
        """Programs it may start in all; `None`: no limit."""

    @property
    def deny(self) -> list[Literal["subprocess", "network", "write", "native"]]:
        """What it must not do: an attempt fails inside the script. A tripwire against accidents, not a sandbox."""

    @property
    def isolation(self) -> Literal["in-process", "process"]:
        """Where it runs."""

    @property
    def risk(self) -> Literal["low", "high"]:
        """How much harm it can do."""

    @property
    def idempotent(self) -> bool:
        """Whether it may run again after an unknown outcome."""

    @property
    def entry(self) -> Literal["plain", "run"]:
        """How it is entered: executed as `__main__`, or by its function `run`."""

    @property
    def context_argv(self) -> bool:
        """Whether the ticket is handed over as JSON in `sys.argv[2]`."""

    @property
    def requires_python(self) -> str | None:
        """The Python versions it needs, for instance `>=3.9`."""

    @property
    def dependencies(self) -> list[str]:
        """The packages it needs."""

    @property
    def warnings(self) -> list[str]:
        """What is doubtful about it, with file and line."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Quarantined:
    """A script version that is kept out of the process, and why."""

    @property
    def script_name(self) -> str:
        """The script."""

    @property
    def script_version(self) -> str:
        """SHA-256 of its source, in hex: another version is not affected."""

    @property
    def concern(self) -> _Concern:
        """Why."""

    @property
    def execution_id(self) -> str:
        """The run that showed it."""

    @property
    def at(self) -> datetime:
        """When it was found out."""

    @property
    def consequence(self) -> Literal["isolated", "tolerated", "refused"]:
        """What becomes of its runs: they run in a process of their own; or, where nothing can isolate them, still in
        this one, or not at all when one of them ended the process."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class InvalidScript:
    """A script that can't run, and why."""

    @property
    def name(self) -> str:
        """The file's name."""

    @property
    def problems(self) -> list[str]:
        """What is wrong, with file and line."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Validation:
    """What was found in a source that was looked at and not kept; true when it could run."""

    @property
    def name(self) -> str:
        """The name under which it was looked at."""

    @property
    def valid(self) -> bool:
        """Whether it could run."""

    @property
    def problems(self) -> list[str]:
        """What is wrong or doubtful, with line and column."""

    @property
    def script(self) -> Script | None:
        """What it would be as a script; `None` when it can't run."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes."""

    def __bool__(self) -> bool: ...

@final
class Route:
    """Which script would run for a ticket, and why."""

    @property
    def script_name(self) -> str:
        """The script."""

    @property
    def script_version(self) -> str:
        """The version that would run."""

    @property
    def category(self) -> str:
        """The category as the script's metadata has it."""

    @property
    def reason(self) -> str:
        """Why this script."""

    @property
    def alternatives(self) -> list[str]:
        """Other scripts of the category, in their order."""

    @property
    def concern(self) -> _Concern | None:
        """Why the version is kept out of the process, if it is and that is known already."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

class ScriptStats:
    """What is counted of one script. Lengths of time are seconds."""

    @property
    def total(self) -> int:
        """Runs that completed or failed."""

    @property
    def successful(self) -> int:
        """Runs that completed."""

    @property
    def failed(self) -> int:
        """Runs that failed."""

    @property
    def cancelled(self) -> int:
        """Runs that were cancelled; not part of `total`."""

    @property
    def success_rate(self) -> float:
        """Successful runs in percent of the total; 0 when nothing ran."""

    @property
    def duration(self) -> float:
        """Length of all runs in `total`."""

    @property
    def avg_duration(self) -> float:
        """Mean length of a run; 0 when nothing ran."""

    @property
    def p50(self) -> float | None:
        """The length that half of the runs do not exceed, to 12.5 %; `None` when nothing ran."""

    @property
    def p90(self) -> float | None:
        """The length that 90 % of the runs do not exceed."""

    @property
    def p95(self) -> float | None:
        """The length that 95 % of the runs do not exceed."""

    @property
    def p99(self) -> float | None:
        """The length that 99 % of the runs do not exceed."""

    @property
    def queue_time(self) -> float:
        """Time that its runs waited for a worker."""

    @property
    def avg_queue_time(self) -> float:
        """The mean of that."""

    @property
    def cpu_time(self) -> float:
        """Processor time of the runs in `total`, where it was measured."""

    @property
    def memory_peak_bytes(self) -> int:
        """Largest memory use of a run; 0 where none was measured."""

    @property
    def children(self) -> int:
        """Programs that its runs started, where they were counted."""

    @property
    def threads(self) -> int:
        """Threads that its runs started, where they were counted."""

    @property
    def output_bytes(self) -> int:
        """Bytes that its runs wrote to both streams."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes."""

    def __eq__(self, other: object, /) -> bool: ...

@final
class Stats(ScriptStats):
    """What is counted of all scripts together, and of each."""

    @property
    def by_script(self) -> dict[str, ScriptStats]:
        """Script by script."""

    @property
    def open(self) -> int:
        """Executions that are open now."""

    @property
    def recent(self) -> tuple[Execution, ...]:
        """The newest finished executions, without output."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the properties as a dictionary that `json.dumps` takes."""

class AutomationError(Exception):
    """The base of every exception of this package."""

    code: str
    """What kind of error it is: stable, and the same in HTTP answers and logs."""
    problems: tuple[dict[str, str], ...]
    """What is wrong, place by place: `pointer` is a JSON pointer, `detail` a sentence."""
    retry_after: float | None
    """Seconds after which the same call may succeed, for errors that pass by themselves."""

class ScriptFailedError(AutomationError):
    """A run failed or was cancelled, and `raise_for_status` was asked to say so."""

    execution: Execution
    """The run."""

class InvalidRequestError(AutomationError, ValueError):
    """An argument has a value that can't be used; `problems` says which and why."""

class InvalidParametersError(AutomationError, ValueError):
    """The parameters do not fit the script's schema; `problems` says which and why."""

class AutomationNotPossibleError(AutomationError):
    """The classification says that the ticket can't be automated."""

class ScriptNotFoundError(AutomationError, LookupError):
    """No script has this name."""

class NoScriptForCategoryError(AutomationError, LookupError):
    """No script that can run serves this category."""

class ExecutionNotFoundError(AutomationError, LookupError):
    """No execution has this id."""

class TicketNotFoundError(AutomationError, LookupError):
    """No execution is recorded for this ticket."""

class InvalidScriptError(AutomationError, ValueError):
    """The script exists and is not fit to run; `problems` says why, with file and line."""

class ConflictError(AutomationError):
    """The present state does not allow this."""

class OverloadedError(AutomationError):
    """Every place is taken and the queue is full; `retry_after` says when to try again."""

class UnsupportedError(AutomationError):
    """A capability that this set-up lacks."""

class ClosedError(AutomationError):
    """The handle was shut down."""

class StorageError(AutomationError):
    """The storage could not do its part."""

class ExecutorError(AutomationError):
    """The executor could not do its part."""

class RunInterrupted(BaseException):
    """Raised in a script whose deadline passed or that was cancelled. Not an `Exception`, so that handlers for those
    leave it alone."""

@final
@type_check_only
class Context:
    """What a script may ask of the engine and tell it."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The validated parameters."""

    @property
    def ticket(self) -> dict[str, Any] | None:
        """The ticket, for ticket runs."""

    @property
    def classification(self) -> dict[str, Any] | None:
        """The ticket's classification, for ticket runs."""

    @property
    def execution_id(self) -> str:
        """The run's id."""

    @property
    def dry_run(self) -> bool:
        """Whether the script is to change nothing."""

    @property
    def cancelled(self) -> bool:
        """Whether the run was asked to end."""

    def remaining(self) -> float | None:
        """Returns the seconds until the deadline; `None` when there is none."""

    def progress(self, fraction: float, text: str = "") -> None:
        """Says how far the script is, from 0 to 1, and what it is doing."""

    def log(self, text: object) -> None:
        """Adds a line to the run's log."""

    def secret(self, name: str) -> str:
        """Returns the secret with this name.

        Raises:
            LookupError: There is none.
        """

    def run_cmd(
        self,
        args: Sequence[str | bytes | PathLike[str]],
        *,
        timeout: float | None = None,
        check: bool = True,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | PathLike[str] | None = None,
    ) -> CompletedProcess[str]:
        """Runs a program, without a shell, and waits for its end; the end of the run ends it and what it started.

        Args:
            args: The program and its arguments: a list, and no text.
            timeout: Seconds until it is killed. Default: the run's own deadline.
            check: Whether another exit code than 0 is an error.
            input: What it reads from standard input, which is empty otherwise.
            env: Its whole environment. Default: the run's.
            cwd: The folder in which it starts.

        Returns:
            `returncode`, `stdout` and `stderr`; of each stream 1 MiB at most, then a line that says so.

        Raises:
            TypeError: `args` is no list of texts.
            OSError: The program can't be started.
            subprocess.CalledProcessError: It failed; the message has the end of its standard error.
            subprocess.TimeoutExpired: It did not end in time, and was killed.
        """

ctx: Context
"""The context of the run that the calling thread belongs to. Without a run it can't be imported, so that a script
that is started by hand can bring a stand-in of its own."""
