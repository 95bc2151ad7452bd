"""Objects that users write themselves and name in a spec: `package.module:factory` or `path/file.py:factory`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from microtome.storage.errors import UnknownNameError, UsageError


def is_factory(spec: str) -> bool:
    """Whether `spec` has the form of a factory: a Python file, or the name of a module that exists."""
    where, _, name = spec.rpartition(":")
    if not name.isidentifier():
        return False
    _reach(Path.cwd())
    return where.endswith(".py") or "." in where or (where.isidentifier() and _exists(where))


def call_factory(spec: str) -> object:
    """Import and call the factory, without arguments.

    The folder of `path/file.py` is appended to sys.path, so that the file finds its neighbours. Raises
    UsageError where the file or module cannot be imported, the name is not in it or the call fails.
    """
    where, _, name = spec.rpartition(":")
    module = _from_file(Path(where).expanduser()) if where.endswith(".py") else _from_name(where)
    factory = getattr(module, name, None)
    if factory is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnknownNameError("factory", name, known, hint=f"Looked in {where}.")
    if not callable(factory):
        raise UsageError(f"{spec}: {name} is a {type(factory).__name__}; expected a function without arguments")
    try:
        return _called(factory)
    except Exception as error:
        raise UsageError(f"{spec} failed: {type(error).__name__}: {error}") from error


def _called(factory: Callable[[], object]) -> object:
    return factory()


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _reach(folder: Path) -> None:
    """Let modules in `folder` be imported; at the end of the path, so that none hides an installed package."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _from_name(name: str) -> ModuleType:
    _reach(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no Python module {name!r} (missing: {error.name}); write path/file.py:factory, "
                "or put its folder on PYTHONPATH"
            ) from error
        raise UsageError(f"module {name} cannot be imported: {error}") from error
    except Exception as error:
        raise UsageError(f"module {name} cannot be imported: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise UsageError(f"there is no file {path}; expected path/file.py:factory")
    name = f"{path.stem}_{hashlib.blake2b(str(path).encode('utf-8', 'surrogateescape'), digest_size=6).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} cannot be imported as a Python file")
    _reach(path.parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise UsageError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
        raise
    return module
