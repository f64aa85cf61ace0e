"""Runs helpdesk automation scripts in-process, safely and durably."""

from ._automation import (
    Automation,
    AutomationError,
    AutomationNotPossibleError,
    ClosedError,
    ConflictError,
    Execution,
    ExecutionNotFoundError,
    ExecutorError,
    Failure,
    InvalidParametersError,
    InvalidRequestError,
    InvalidScript,
    InvalidScriptError,
    NoScriptForCategoryError,
    OverloadedError,
    Page,
    Quarantined,
    Route,
    RunInterrupted,
    Script,
    ScriptFailedError,
    ScriptNotFoundError,
    ScriptStats,
    Stats,
    StorageError,
    TicketNotFoundError,
    UnsupportedError,
    Validation,
    __version__,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._automation import ctx as ctx
else:
    # Has `ctx`, in a run only: `from automation import ctx` is an ImportError where a script runs by hand.
    from ._automation import __getattr__
del TYPE_CHECKING

__all__ = [
    "Automation",
    "AutomationError",
    "AutomationNotPossibleError",
    "ClosedError",
    "ConflictError",
    "Execution",
    "ExecutionNotFoundError",
    "ExecutorError",
    "Failure",
    "InvalidParametersError",
    "InvalidRequestError",
    "InvalidScript",
    "InvalidScriptError",
    "NoScriptForCategoryError",
    "OverloadedError",
    "Page",
    "Quarantined",
    "Route",
    "RunInterrupted",
    "Script",
    "ScriptFailedError",
    "ScriptNotFoundError",
    "ScriptStats",
    "Stats",
    "StorageError",
    "TicketNotFoundError",
    "UnsupportedError",
    "Validation",
    "__version__",
]
