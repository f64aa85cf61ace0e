"""Stands in for the module inside a run, so that the by-hand half can test what a context changes.

The test says in AUTOMATION_TEST_CONTEXT what the context holds, and reads on stderr what it was told.
"""

import json
import os
import sys


class _Context:
    def __init__(self, given):
        self.ticket = given.get("ticket")
        self.classification = given.get("classification")
        self.dry_run = given.get("dry_run", False)
        self._looks_before_cancel = given.get("looks_before_cancel")
        self._remaining = given.get("remaining")

    @property
    def cancelled(self):
        if self._looks_before_cancel is None:
            return False
        self._looks_before_cancel -= 1
        return self._looks_before_cancel < 0

    def remaining(self):
        return self._remaining

    def progress(self, fraction, text):
        assert 0 <= fraction <= 1
        print(f"progress {fraction} {text}", file=sys.stderr)

    def log(self, text):
        print(f"log {text}", file=sys.stderr)

    def secret(self, name):
        try:
            return os.environ[f"AUTOMATION_SECRET_{name.upper()}"]
        except KeyError:
            raise LookupError(name) from None


ctx = _Context(json.loads(os.environ["AUTOMATION_TEST_CONTEXT"]))
