"""One actor of the pool, and waiting for what actors do: always with a deadline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from orchestrator.errors import ArchbenchError, EnvironmentFailure

CALL_S: Final = 20.0


def get(references: Any, timeout_s: float, what: str) -> Any:
    """ray.get with a deadline, and errors in our own words."""
    import ray

    try:
        return ray.get(references, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError as error:
        raise EnvironmentFailure(f"{what}: no answer in {timeout_s:.0f} s") from error
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, EnvironmentFailure):
            message = f"{what}: {cause.message}"
            raise EnvironmentFailure(message, path=cause.path, hint=cause.hint) from error
        if isinstance(cause, ArchbenchError):
            raise cause from error
        raise EnvironmentFailure(f"{what}: {type(cause).__name__}: {cause}") from error
    except ray.exceptions.RayError as error:
        raise EnvironmentFailure(f"{what}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class Member:
    """One actor of the pool, the address of its host, and its clock against the driver's."""

    actor: Any
    host: str
    offset_ns: int
    uncertainty_ns: int

    def call(self, name: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """Let its child carry out a command; returns Ray's reference."""
        return self.actor.call.remote(name, *arguments, timeout_s=timeout_s)
