"""What readers of files have in common before any of them is opened."""

from __future__ import annotations

from collections.abc import Sequence


class FileReader:
    """The members of an ImageDataset that most formats answer alike; `_spec` is what the user wrote."""

    _spec: str

    @property
    def spec(self) -> str:
        return self._spec

    @property
    def image_label_slots(self) -> int:
        return 0

    @property
    def class_names(self) -> Sequence[str]:
        return ()
