"""`automation.ctx` in a process of a run's own: what a script may ask of the engine and tell it, over a socket."""

import os
import threading
import time
from types import ModuleType

from . import _run_cmd, _wire


class RunInterrupted(BaseException):
    """Raised in a run that has to end."""


RunInterrupted.__module__ = "automation"

# What the host says of a secret that it does not give, by the kind of the answer.
ERRORS = {"lookup": LookupError, "value": ValueError, "os": OSError}


class Context:
    """The run that this process is for."""

    def __init__(self, wire, order):
        self._wire, self._process = wire, os.getpid()
        # What is deleted while it is held may tell something as well.
        self._lock, self._asked = threading.RLock(), 0
        self._deadline = order["deadline"]
        self.parameters = order["parameters"]
        self.ticket = order["ticket"]
        self.classification = order["classification"]
        self.execution_id = order["execution_id"]
        self.dry_run = order["dry_run"]

    @property
    def cancelled(self):
        """Whether the run was asked to end."""
        return self._ask({"ask": "cancelled"})["cancelled"]

    def remaining(self):
        """Seconds until the deadline; `None` when there is none."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.clock_gettime(time.CLOCK_MONOTONIC))

    def progress(self, fraction, text=""):
        """Says how far the script is, from 0 to 1, and what it is doing."""
        fraction = float(fraction)
        if not 0 <= fraction <= 1:
            shown = "NaN" if fraction != fraction else fraction
            raise ValueError(f"fraction is {shown}, expected 0 to 1")
        if not isinstance(text, str):
            raise TypeError(f"text is of type {type(text).__name__}, expected str")
        self._tell({"tell": "progress", "fraction": fraction, "text": sendable(text)})

    def log(self, text):
        """Adds a line to the run's log."""
        self._tell({"tell": "log", "text": sendable(str(text))})

    def secret(self, name):
        """Returns the secret with this name. Raises `LookupError` when there is none."""
        answer = self._ask({"ask": "secret", "name": sendable(name)})
        if "error" in answer:
            raise ERRORS[answer["error"]](answer["message"])
        return answer["secret"]

    run_cmd = staticmethod(_run_cmd.run_cmd)

    def _effect(self, effect, target, denied):
        self._tell({"tell": "effect", "effect": effect, "target": sendable(target), "denied": denied})

    def __repr__(self):
        return f"<automation context of run {self.execution_id}>"

    def _tell(self, message):
        self._check_process()
        with self._lock:
            _wire.send(self._wire, message)

    def _ask(self, question):
        self._check_process()
        with self._lock:
            self._asked += 1
            question["number"] = self._asked
            _wire.send(self._wire, question)
            while True:
                answer = _wire.receive(self._wire)
                if answer is None:
                    raise RuntimeError("the run has ended")
                # Others are to questions whose asking was interrupted.
                if answer["number"] == self._asked:
                    return answer

    def _check_process(self):
        if os.getpid() != self._process:
            raise RuntimeError("this process belongs to no run: it is a copy that the script forked")


def sendable(text):
    """Returns a text without the lone surrogates that JSON can't carry."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def package(context):
    """Returns the package `automation` of a run."""
    module = ModuleType("automation", "What a script may ask of the engine that runs it.")
    module.ctx, module.RunInterrupted = context, RunInterrupted
    return module
