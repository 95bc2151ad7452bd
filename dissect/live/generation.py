"""What a server has done by a run's generator: images under edits, and what a segmenter sees in them."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.dissect.audit.job import choose_device
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.generators.effects import areas_of, segmenter_of_run
from microtome.dissect.generators.generator import Generator, generator_of_run
from microtome.dissect.generators.recipes import Recipe, edit_to_json, edited_pictures, edits_from_json
from microtome.dissect.models.segmenters import Segmenter
from microtome.reports.server.actions import AbandonedError, Stop
from microtome.reports.server.generation import Areas, Edits
from microtome.storage.run import Run

_KEPT = 64
"""Pictures that are kept, the latest: those of which areas are asked a moment later."""


class LiveGenerator:
    """The generator of a finished run, opened when it is first needed (see reports/server/generation.py).

    It has a module of its own beside the one that explanations use, and one thread at a time runs it; the segmenter
    runs beside it. device: where both run, None = where the run did, or the CPU.
    """

    def __init__(self, run: Run, device: str | None = None) -> None:
        self._run, self._device = run, device
        self._one_at_a_time = threading.Lock()
        self._made: OrderedDict[tuple[int, str], NDArray[np.uint8]] = OrderedDict()

    @cached_property
    def generator(self) -> Generator:
        """Raises RunMismatchError where it is another one than the run was made with."""
        generator = generator_of_run(self._run)
        return generator if self._device is None else generator.to(choose_device(self._device))

    @cached_property
    def _segmenter(self) -> Segmenter:
        return segmenter_of_run(self._run, self.generator.device)

    def picture(self, seed: int, edits: Edits, stop: Stop) -> NDArray[np.uint8]:
        """The image of a seed under edits, (H, W, 3): the bytes that `microtome generate` writes."""
        changes = edits_from_json(list(edits))
        key = (seed, json.dumps([edit_to_json(edit) for edit in changes]))
        with self._at_work(stop):
            if key not in self._made:
                self._made[key] = edited_pictures(self.generator, changes, [seed])[0]
                while len(self._made) > _KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return self._made[key]

    def areas(self, seed: int, edits: Edits, stop: Stop) -> Areas:
        """What the run's segmenter sees in the image without and with the edits. Raises UsageError without one."""
        pair = np.stack([self.picture(seed, (), stop), self.picture(seed, edits, stop)])
        if stop():
            raise AbandonedError
        images = torch.from_numpy(pair).to(self.generator.device).permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
        ids = self._segmenter(images.contiguous())
        before, after = areas_of(ids, len(self._segmenter.labels))
        maps: NDArray[np.int64] = ids.cpu().numpy()
        return Areas(self._segmenter.labels, before, after, maps[0], maps[1])

    def recipe(self, edits: Edits, seeds: Sequence[int]) -> dict[str, Any]:
        """The recipe of edits, as its file has it."""
        with self._one_at_a_time:
            recipe = Recipe.of(self.generator, edits_from_json(list(edits)), seeds)
        content: dict[str, Any] = json.loads(recipe.to_json())
        return content

    def read_recipe(self, recipe: Mapping[str, Any]) -> tuple[Edits, Sequence[int]]:
        """Edits and seeds of a recipe. Raises UsageError for what is none, RunMismatchError for another generator's."""
        found = Recipe.from_json(json.dumps(recipe))
        with self._one_at_a_time:
            found.check(self.generator, advice="open a run of that generator")
        return [edit_to_json(edit) for edit in found.edits], found.seeds

    @contextmanager
    def _at_work(self, stop: Stop) -> Iterator[None]:
        """While open, this thread alone runs the generator, and float32 is float32."""
        with self._one_at_a_time:
            if stop():
                raise AbandonedError
            with arithmetic("float32", self.generator.device):
                yield
