"""Runs helpdesk automation scripts in-process, safely and durably."""

from ._automation import RunInterrupted, ctx

__all__ = ["RunInterrupted", "ctx"]
