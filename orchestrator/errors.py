"""The exception tree.

::

    ArchbenchError                 anything a user can meet; carries path and hint
    ├── InputError       exit 2    what the user gave is wrong
    │   ├── ConfigError            a configuration path, its value, what is allowed
    │   ├── DataError              a line of a file (trace, history, scenario)
    │   └── InfeasibleError        a variant that its own limits forbid (system.memory)
    ├── EnvironmentFailure exit 3  Ray, a server, the disk or a deadline failed
    │   ├── PartLost               a process or a host of a run was lost: it may be run again
    │   ├── LogDamaged             a node's disk does not hold what it had said to hold
    │   ├── ClusterLost            nothing can be run any more
    │   └── ResultsFull            nothing can be stored any more
    └── RunInterrupted   exit 130  the user pressed Ctrl-C; finished work is kept

Exit code 1 belongs to verdicts (a run that is invalid, an SLO that is missed), which are
results and not exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ArchbenchError(Exception):
    """Base of everything that is told to the user in one message.

    ``path`` names the place (a config path such as ``system.replicas``, or ``file:line``);
    ``hint`` says what would mend it.
    """

    exit_code = 3

    def __init__(self, message: str, *, path: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.message}{hint}"

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between processes.
        return (_rebuild, (type(self), self.message, self.path, self.hint))


def _rebuild(
    kind: type[ArchbenchError], message: str, path: str | None, hint: str | None
) -> ArchbenchError:
    return kind(message, path=path, hint=hint)


class InputError(ArchbenchError):
    """What the user gave is wrong."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration value is wrong; ``path`` is the full config path."""


class DataError(InputError):
    """A data file is wrong; ``path`` is ``file:line`` where a line is known."""


class InfeasibleError(InputError):
    """The variant contradicts its own limits; a study counts it as infeasible."""


class EnvironmentFailure(ArchbenchError):
    """Something around us failed: Ray, a server process, a disk, a deadline."""

    exit_code = 3


class PartLost(EnvironmentFailure):
    """A process or a host that took part in a run is gone or silent; others may do its work."""


class LogDamaged(EnvironmentFailure):
    """What a node had synced is not there any more; starting it again mends nothing."""


class ClusterLost(EnvironmentFailure):
    """The head of the cluster does not answer, so no further run can be placed."""


class ResultsFull(EnvironmentFailure):
    """The results folder has no room left; what it holds is whole, and can be gone on from."""


class RunInterrupted(ArchbenchError):
    """The user stopped us; everything finished is kept."""

    exit_code = 130


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """A "did you mean" for ``word``, else the list of what is allowed."""
    names = list(allowed)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "allowed: " + ", ".join(names) if names else "nothing is allowed here"
