"""TOML files that users write: the settings of an audit, rules for a run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from microtome.storage.errors import UsageError


def toml_values(path: Path) -> dict[str, Any]:
    """The values of a TOML file as they stand there. Raises UsageError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
