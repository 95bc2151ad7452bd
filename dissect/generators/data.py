"""A generator's own images as a dataset.

    generated:2000             of seeds 0 to 1999; sample i is seed i
    generated:2000?seed=5000   of seeds 5000 to 6999
    generated:FOLDER           of an image-to-image network, for every image in a folder

Nobody has labelled them: a segmenter does. Opening needs no generator; its model is loaded when something is asked
that depends on it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, FingerprintsSamples, ImageDataset, Sample
from microtome.datasets.specs import open_dataset, parse_options
from microtome.dissect.generators.generator import Generator
from microtome.storage.errors import SampleError, UsageError

SCHEME = "generated"
EXAMPLE = "generated:2000?seed=0"
LARGEST_SEED = 2**63 - 1
Pixels = NDArray[np.uint8]
LatentRow = tuple[NDArray[np.generic], ...]
"""What a generator takes for one sample: arrays without the batch."""
KEPT_BYTES = 128 << 20
"""Of pictures that a dataset keeps, those made first: 10,000 of 64 x 64 pixels. An audit needs each several times."""


@dataclass(frozen=True)
class GeneratedSpec:
    """A parsed spec: `count` images from seed `first` on, or (where `folder` is not empty) one for each image in it."""

    count: int
    first: int = 0
    folder: str = ""


def is_generated(spec: str) -> bool:
    """Whether a dataset's spec names a generator's own images."""
    return spec.partition(":")[0] == SCHEME and ":" in spec


def parse_generated(spec: str) -> GeneratedSpec:
    """Read a spec. Raises UsageError with an example where it makes no sense."""
    rest, _, options = spec.partition(":")[2].partition("?")
    if rest.isascii() and rest.isdigit():
        first = parse_options(options, spec, EXAMPLE, ("seed",)).get("seed", 0)
        if int(rest) < 1:
            raise UsageError(f"{spec!r}: the number of images has to be 1 or more, such as {EXAMPLE}")
        if first + int(rest) > LARGEST_SEED:
            raise UsageError(f"{spec!r}: seeds go up to {LARGEST_SEED}")
        return GeneratedSpec(int(rest), first)
    if not rest or not (any(sign in rest for sign in "/\\~") or Path(rest).is_dir()):
        raise UsageError(
            f"{spec!r}: {rest!r} is neither a number of images, as in {EXAMPLE}, nor a folder of inputs for an "
            "image-to-image network"
        )
    if options:
        raise UsageError(f"{spec!r}: a folder of inputs takes no options")
    return GeneratedSpec(0, folder=rest)


def inputs_of(spec: str) -> ImageDataset | None:
    """The inputs of an image-to-image network that a dataset's spec names; None where it names none."""
    folder = parse_generated(spec).folder if is_generated(spec) else ""
    return open_dataset(f"images:{folder}") if folder else None


class GeneratedDataset:
    """The images that a generator makes of some seeds, without labels. An ImageDataset; safe for several threads.

    open_generator: called once, when something is needed that depends on the generator.
    """

    concepts: Sequence[Concept] = ()
    plane_names: Sequence[str] = ()
    class_names: Sequence[str] = ()
    image_label_slots = 0

    def __init__(self, spec: str, open_generator: Callable[[ImageDataset | None], Generator]) -> None:
        self.spec = spec
        self._asked = parse_generated(spec)
        self._inputs = inputs_of(spec)
        self._open = open_generator
        self._lock = threading.Lock()
        self._ready = threading.local()
        self._kept: dict[int, Pixels] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return self._asked.count if self._inputs is None else len(self._inputs)

    @cached_property
    def _generator(self) -> Generator:
        return self._open(self._inputs)

    @property
    def generator(self) -> Generator:
        """The generator, opened at the first call. Raises what opening it raises."""
        with self._lock:
            return self._generator

    def seed(self, index: int) -> int:
        """The seed of sample `index`; of an image-to-image network the number of its input."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._asked.first + index

    def entry(self, index: int) -> Entry:
        """Its key: the seed, or that of the input."""
        seed = self.seed(index)
        return Entry(f"seed-{seed:06d}" if self._inputs is None else self._inputs.entry(seed).key)

    def read(self, index: int) -> Sample:
        """The picture of sample `index`, without labels. Raises SampleError where its input cannot be read."""
        image = self._pictures([index])[index]
        return Sample(image, np.zeros((0, *image.shape[:2]), np.uint16), np.zeros(0, np.uint16))

    def latents(self, index: int) -> LatentRow:
        """What the generator takes for sample `index`. Raises SampleError where its input cannot be read."""
        return tuple(part[0].numpy() for part in self.generator.drawn([self.seed(index)]))

    @contextmanager
    def together(self, indices: Sequence[int]) -> Iterator[None]:
        """While open, this thread reads the samples `indices`, made at once, without making each anew."""
        self._ready.pictures = self._pictures([index for index in indices if self._can_be_made(index)])
        try:
            yield
        finally:
            self._ready.pictures = {}

    def _pictures(self, indices: Sequence[int]) -> dict[int, Pixels]:
        """The pictures of samples, as they are ready or kept, the others made at once."""
        ready: dict[int, Pixels] = getattr(self._ready, "pictures", {})
        found = {index: held[index] for held in (self._kept, ready) for index in indices if index in held}
        missing = [index for index in indices if index not in found]
        if missing:
            made = self.generator.pictures([self.seed(index) for index in missing])
            for index, picture in zip(missing, made, strict=True):
                found[index] = picture
                self._keep(index, picture)
        return found

    def _keep(self, index: int, picture: Pixels) -> None:
        """Keep a picture if there is room; what came first stays, so that going through all again finds it."""
        with self._lock:
            if index not in self._kept and picture.nbytes <= self._room:
                self._kept[index] = picture.copy()
                self._room -= picture.nbytes

    def _can_be_made(self, index: int) -> bool:
        if self._inputs is None:
            return True
        try:
            self._inputs.read(self.seed(index))
        except SampleError:
            return False
        return True

    def fingerprint(self) -> str:
        """A hash of the generator, of the seeds, and of the inputs where there are any."""
        inputs = "" if self._inputs is None else self._inputs.fingerprint()
        words = f"{self._mark()} {len(self)} {self._asked.first} {inputs}"
        return hashlib.blake2b(words.encode(), digest_size=16).hexdigest()

    def sample_fingerprint(self, index: int) -> int:
        """64 bits of the generator and the seed, or the input."""
        seed = self.seed(index)
        own = self._inputs.sample_fingerprint(seed) if isinstance(self._inputs, FingerprintsSamples) else seed
        digest = hashlib.blake2b(f"{self._mark()} {own}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")

    def _mark(self) -> str:
        model = self.generator.model
        return f"generated 1 {model.fingerprint} {self.generator.size}"
