"""Host profiles as files: what ``archbench calibrate`` writes and ``hosts.profile`` names."""

from __future__ import annotations

import os
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from orchestrator.config.build import build
from orchestrator.config.load import parse_yaml
from orchestrator.config.paths import spelled
from orchestrator.config.render import render_record
from orchestrator.config.shape import Record
from orchestrator.core.host_profile import HostProfile
from orchestrator.errors import ConfigError

_ROOT = Record(HostProfile)


def read_profile(path: str) -> HostProfile:
    """The profile in a file. Raises ConfigError where it is missing or malformed."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise ConfigError(
            f"cannot read the host profile {path!r}: {reason}",
            path="hosts.profile",
            hint="archbench calibrate measures this host and writes one",
        ) from None
    try:
        profile: HostProfile = build(_ROOT, spelled(_ROOT, parse_yaml(text, path)), "")
    except ConfigError as error:
        where = f"{path}: {error.path}" if error.path else path
        raise ConfigError(error.message, path=where, hint=error.hint) from None
    return profile


def write_profile(profile: HostProfile, path: str) -> None:
    """Write it, at once or not at all. Raises OSError."""
    # A list of quantiles on as few lines as it needs.
    plain = render_record(profile)
    text = yaml.safe_dump(plain, sort_keys=False, width=100, default_flow_style=None)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    written = target.with_name(f".{target.name}.{os.getpid()}")
    written.write_text(text, encoding="utf-8")
    written.replace(target)
