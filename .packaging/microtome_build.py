"""The build backend (PEP 517): setuptools, after the script of the map's page is built.

`pip install .` in a clone thus gives a wheel with `map.js` in it. Node is asked for, from PyPI, only where the script
is not current and the machine has no node of its own; a source distribution holds the script, and asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import frontend
from setuptools import build_meta
from setuptools.build_meta import prepare_metadata_for_build_editable, prepare_metadata_for_build_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = Mapping[str, Any] | None


def _node() -> list[str]:
    return [] if frontend.is_current() or frontend.installed_node() else [frontend.NODE_REQUIREMENT]


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What setuptools asks for, and node where it is needed."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_node()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """What setuptools asks for, and node where it is needed."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *_node()]


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """What setuptools asks for, and node where it is needed."""
    return [*build_meta.get_requires_for_build_sdist(config_settings), *_node()]


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """A wheel that holds the script."""
    frontend.build()
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """An editable install, of a tree that holds the script."""
    frontend.build()
    return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """A source distribution that holds the script."""
    frontend.build()
    return str(build_meta.build_sdist(sdist_directory, config_settings))
