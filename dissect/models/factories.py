"""Models that the user's own code builds: `package.module:factory` and `path/file.py:factory`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import cast

from torch import nn

from microtome.storage.errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class Product:
    """What a factory shall return, in words, and how to tell."""

    words: str
    accepts: Callable[[object], bool]


MODULE = Product("a torch.nn.Module", lambda made: isinstance(made, nn.Module))


def build_from_file(path: Path, attribute: str) -> nn.Module:
    """Run `path` and call its factory.

    Meanwhile files beside it can be imported, unless an installed module has the same name.
    Raises UsageError when the file, the factory or its result is not usable.
    """
    return cast("nn.Module", make_from_file(path, attribute, MODULE))


def build_from_module(name: str, attribute: str) -> nn.Module:
    """Import the module `name` and call its factory; raises UsageError when that is not possible."""
    return cast("nn.Module", make_from_module(name, attribute, MODULE))


def make_from_file(path: Path, attribute: str, product: Product) -> object:
    """As `build_from_file`, of a factory of anything."""
    if not path.is_file():
        raise UsageError(f"{path}:{attribute}: there is no file {path}")
    folder = path.resolve().parent
    if (folder / "__init__.py").is_file():  # part of a package: imported as such, so that `from .beside import` works
        names = [path.stem]
        while (folder / "__init__.py").is_file():
            names.insert(0, folder.name)
            folder = folder.parent
        with _importable(folder):
            return make_from_module(".".join(names), attribute, product)
    with _importable(folder):
        return _call(_run_file(path), str(path), attribute, product)


def make_from_module(name: str, attribute: str, product: Product) -> object:
    """As `build_from_module`, of a factory of anything."""
    try:
        with _importable(Path.cwd()):
            module = importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            beside = Path(name.replace(".", "/") + ".py")
            hint = f"; to load the file, write {beside}:{attribute}" if beside.is_file() else ""
            raise UsageError(f"{name}:{attribute}: there is no module {error.name!r} to import{hint}") from error
        raise UsageError(f"{name} cannot be imported: {_reason(error)}") from error
    return _call(module, name, attribute, product)


def _run_file(path: Path) -> ModuleType:
    # Executed afresh each time, without the bytecode cache: that one is keyed by whole seconds and would also
    # leave files beside the user's.
    resolved = path.resolve()
    name = f"microtome_file_{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None:
        raise UsageError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(resolved.read_bytes(), str(resolved), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"{path} cannot be loaded: {_reason(error)}") from error
    return module


def _call(module: ModuleType, source: str, attribute: str, product: Product) -> object:
    factory: object = module
    for part in attribute.split("."):
        if not hasattr(factory, part):
            raise UnknownNameError(f"factory in {source}", attribute, _callables(module))
        factory = getattr(factory, part)
    if isinstance(factory, nn.Module) and product.accepts(factory):
        return factory
    if not callable(factory):
        raise UsageError(f"{source}:{attribute} is a {type(factory).__name__}; expected a function without arguments")
    _check_no_arguments(factory, f"{source}:{attribute}")
    try:
        made: object = factory()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{source}:{attribute} failed: {_reason(error)}") from error
    if not product.accepts(made):
        raise UsageError(f"{source}:{attribute} returned a {type(made).__name__}; expected {product.words}")
    return made


def _check_no_arguments(factory: Callable[..., object], name: str) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return
    try:
        signature.bind()
    except TypeError as error:
        raise UsageError(
            f"{name}{signature} cannot be called without arguments ({error}); point the spec to a function that can"
        ) from error


def _callables(module: ModuleType) -> list[str]:
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    return own or [name for name, value in vars(module).items() if not name.startswith("_") and callable(value)]


def _reason(error: BaseException) -> str:
    """The error in one line, with the place in the user's file where it arose."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}{place}"


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    # At the end of the path: a file beside the model never hides an installed package.
    entry = str(folder)
    if entry in sys.path:
        yield
        return
    sys.path.append(entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.reverse()
            sys.path.remove(entry)
            sys.path.reverse()
