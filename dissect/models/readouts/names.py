"""How directions are asked for and what the layers that they make are called.

--units SPEC                what it gives for a layer of C units
axes                        the layer's own units
pca, pca64                  its principal components, or the first 64
rotated                     a random rotation of it
FILE.npy                    the columns of a matrix (C, U)
FILE.safetensors[#TENSOR]   likewise; the tensor's name where the file holds several
FILE.py:factory             an encoder: what the factory returns maps (M, C) rows to (M, U)
package.module:factory      likewise

The layer LAYER:LABEL holds them; LABEL is `pca`, `pca64`, `rotated`, or the base name of the user's file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from microtome.storage.errors import UnknownNameError, UsageError

Kind = Literal["axes", "pca", "rotated", "matrix", "encoder"]

FORMS = (
    "give axes, pca, pca64, rotated, FILE.npy, FILE.safetensors, FILE.safetensors#TENSOR, FILE.py:factory "
    "or package.module:factory"
)
_PCA = re.compile(r"pca(\d*)")
_BUILT_IN = re.compile(r"(?P<layer>.+):(?P<label>pca\d*|rotated)")
_TENSORS = ".safetensors"

FILE_LABEL = re.compile(r".+:(?P<label>[^:]+\.(npy|safetensors(#[^:]+)?|py:\w+))")
"""LAYER:LABEL where LABEL is that of a user's file."""


@dataclass(frozen=True)
class UnitsSpec:
    """One way to read units out of a layer.

    label: what follows the layer's name and a colon, empty for the axes; source: absolute where it names a file;
    components: of `pcaN`, None = all; path, tensor: of a matrix, the file and the name within it (empty: the only one).
    """

    kind: Kind
    label: str = ""
    source: str = ""
    components: int | None = None
    path: Path | None = None
    tensor: str = ""

    def name(self, base: str) -> str:
        """What the layer `base`, read out in this way, is called."""
        return f"{base}:{self.label}" if self.label else base


AXES = UnitsSpec("axes", source="axes")
ROTATED = UnitsSpec("rotated", "rotated", "rotated")


def parse_units(text: str) -> UnitsSpec:
    """What `text` asks for; files are not looked at. Raises UsageError for what has none of the forms."""
    if text == "axes":
        return AXES
    if text == "rotated":
        return ROTATED
    if found := _PCA.fullmatch(text):
        components = int(found[1]) if found[1] else None
        if components == 0:
            raise UsageError("--units pca0: a whole number of components, at least 1")
        return UnitsSpec("pca", text, text, components)
    if (matrix := _matrix(text)) is not None:
        return matrix
    head, colon, factory = text.rpartition(":")
    if colon and factory and (head.endswith(".py") or "/" in head or "\\" in head):
        path = Path(head).expanduser().resolve()
        return UnitsSpec("encoder", f"{path.name}:{factory}", f"{path}:{factory}")
    if colon and factory and all(part.isidentifier() for part in head.split(".")):
        return UnitsSpec("encoder", text, text)
    near = UnknownNameError("kind of units", text, ("axes", "pca", "rotated"), hint=f"{FORMS}.")
    raise near if near.near else UsageError(f"--units {text}: {FORMS}")


def parse_all(texts: Iterable[str]) -> list[UnitsSpec]:
    """The specs, each once. Raises UsageError where two that differ would make layers of one name."""
    specs: dict[str, UnitsSpec] = {}
    for spec in map(parse_units, texts):
        other = specs.setdefault(spec.label, spec)
        if other != spec:
            raise UsageError(
                f"--units {other.source} and {spec.source} would both be called {spec.label!r}; "
                "give one of the files another name"
            )
    return list(specs.values())


def absolute_units(text: str) -> str:
    """The spec with its file's path made absolute."""
    return parse_units(text).source


def split_pattern(pattern: str, specs: Sequence[UnitsSpec] = ()) -> tuple[str, UnitsSpec | None]:
    """The layers that `--layers PATTERN` picks, and how their units are read out, None where it does not say.

    `block5:pca` and `block*:rotated` say so by themselves; LAYER:LABEL does where one of `specs` has that label.
    """
    for spec in specs:
        if spec.label and pattern.endswith(f":{spec.label}") and len(pattern) > len(spec.label) + 1:
            return pattern.removesuffix(f":{spec.label}"), spec
    if found := _BUILT_IN.fullmatch(pattern):
        return found["layer"], parse_units(found["label"])
    return pattern, None


def split_readout(name: str, known_layers: Collection[str]) -> tuple[str, str | None]:
    """The layer and the label in a layer's name: ("block5", "pca") for "block5:pca", ("block5", None) for "block5".

    known_layers: names of layers without a label. Of several that `name` begins with, the longest is meant; a name
    that none of them fits is taken apart at pca, pcaN and rotated, and else is a layer.
    """
    if name in known_layers:
        return name, None
    fitting = [layer for layer in known_layers if name.startswith(f"{layer}:")]
    if fitting:
        base = max(fitting, key=len)
        return base, name.removeprefix(f"{base}:")
    found = _BUILT_IN.fullmatch(name)
    return (found["layer"], found["label"]) if found else (name, None)


def _matrix(text: str) -> UnitsSpec | None:
    head, found, tensor = text.rpartition(f"{_TENSORS}#")
    if found and tensor and not Path(text).expanduser().is_file():
        path = Path(head + _TENSORS).expanduser().resolve()
        return UnitsSpec("matrix", f"{path.name}#{tensor}", f"{path}#{tensor}", path=path, tensor=tensor)
    if text.endswith((".npy", _TENSORS)):
        path = Path(text).expanduser().resolve()
        return UnitsSpec("matrix", path.name, str(path), path=path)
    return None
