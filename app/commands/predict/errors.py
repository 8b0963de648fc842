"""Errors of a run, or of one of its inputs.

CommandFailed          the run ends with exit code 2; the message is one line with what to do
├── NoInput            nothing to read, or nowhere to write
├── OutputLost         stdout can't be written
├── NoModels           no model in this process can serve
└── RunFailed          the gateway would refuse every input
    └── NobodyAnswers  there is no gateway, or not any more
InputFailed            one input is without an answer; the others go on
"""

from __future__ import annotations


class CommandFailed(Exception):
    """No input can have an answer; the message is one line with what to do."""


class NoInput(CommandFailed):
    """There is nothing to read, or nowhere to write."""


class OutputLost(CommandFailed):
    """Standard output can't be written: the disk is full."""


class NoModels(CommandFailed):
    """Nothing in this process can serve."""


class RunFailed(CommandFailed):
    """The gateway would refuse every input."""


class NobodyAnswers(RunFailed):
    """There is no gateway, or not any more."""


class InputFailed(Exception):
    """One input has no answer. `code` is the problem's, `what_to_do` may be empty."""

    def __init__(self, code: str, detail: str, what_to_do: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.what_to_do = what_to_do

    def document(self) -> dict[str, str]:
        """For JSON, named as in a problem."""
        return {"code": self.code, "detail": self.detail, "what_to_do": self.what_to_do}

    def line(self) -> str:
        """For people."""
        return f"failed: {self.detail}" + (f" ({self.what_to_do})" if self.what_to_do else "")
