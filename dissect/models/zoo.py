"""Networks that torchvision and timm know, with the preprocessing that their weights' metadata states."""

from __future__ import annotations

import importlib
import math
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import nn

from microtome.dissect.models.preprocess import INTERPOLATIONS, Preprocess
from microtome.storage.errors import MicrotomeError, UnknownNameError, UsageError

DEFAULT = "DEFAULT"
NONE = "none"
_DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer
_CONNECT_TIMEOUT = 4.0  # seconds for the name look-up and the connection together


@dataclass(frozen=True)
class ZooModel:
    """What a library gives for a name; `weights` in words, `preprocess` None where the library states none."""

    module: nn.Module
    preprocess: Preprocess | None
    class_names: tuple[str, ...]
    weights: str


def build_torchvision(name: str, weights: str) -> ZooModel:
    """Build `torchvision.models.get_model(name)`.

    weights: NONE (random from seed 0), DEFAULT, or a name in the model's weights enum (in any case). Raises
    UsageError when weights are neither cached nor to be downloaded, UnknownNameError for unknown names.
    """
    from torchvision import models

    known: list[str] = models.list_models()
    if name not in known:
        raise UnknownNameError("torchvision model", name, known)
    entry = _torchvision_entry(name, weights)
    stated = None if entry is None else _torchvision_preprocess(entry)
    if weights == NONE:
        with seeded(), quiet():
            module = _without_weights(models.get_model_builder(name))
        return ZooModel(module, stated, (), "random, seed 0")
    if entry is None:
        raise no_weights("torchvision", name, "torchvision has none for it")
    try:
        with seeded(), quiet(), _download_timeout():
            module = models.get_model(name, weights=entry, progress=False)
    except Exception as error:
        raise no_weights("torchvision", name, f"{type(error).__name__}: {error}") from error
    categories = tuple(str(category) for category in entry.meta.get("categories") or ())
    return ZooModel(module, stated, categories, f"torchvision {entry}")


def build_timm(name: str, weights: str) -> ZooModel:
    """Build `timm.create_model(name)`; weights: NONE (random, seed 0) or DEFAULT (pretrained). Raises UsageError."""
    try:
        import timm
    except ImportError as error:
        raise UsageError(f"timm:{name} needs timm, which is not installed: pip install microtome[timm]") from error
    if weights not in (NONE, DEFAULT):
        tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
        raise UnknownNameError(
            f"weights of timm:{name}", weights, [NONE], f"Other weights are part of timm's names: {', '.join(tags)}"
        )
    if ":" not in name and not timm.is_model(name):
        raise UnknownNameError("timm model", name, timm.list_models())
    try:
        with seeded(), quiet(), _download_timeout(), hub_as_reachable(weights == DEFAULT):
            module: nn.Module = timm.create_model(name, pretrained=weights == DEFAULT)
    except Exception as error:
        raise no_weights("timm", name, f"{type(error).__name__}: {error}") from error
    tag = getattr(module, "pretrained_cfg", {}).get("tag") or "default"
    trained = weights == DEFAULT
    return ZooModel(
        module,
        timm_preprocess(_timm_data().resolve_model_data_config(module)),
        _timm_class_names(module) if trained else (),
        f"timm {name.split('.')[0]}.{tag}" if trained else "random, seed 0",
    )


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Draw random weights from `seed`, and give the global generator its state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _torchvision_entry(name: str, weights: str) -> Any:
    """The member of the weights enum that `weights` names (DEFAULT's for NONE); None where the model has no weights."""
    from torchvision import models

    members = {member.upper(): entry for member, entry in models.get_model_weights(name).__members__.items()}
    if weights in (NONE, DEFAULT):
        return members.get(DEFAULT)
    wanted = weights.upper().rpartition(".")[2]
    if wanted not in members:
        raise UnknownNameError(f"weights of torchvision:{name}", weights, [*members, NONE])
    return members[wanted]


def _torchvision_preprocess(entry: Any) -> Preprocess | None:
    transforms = entry.transforms()
    resize, crop = getattr(transforms, "resize_size", None), getattr(transforms, "crop_size", None)
    mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
    size = crop or resize
    if not size or mean is None or std is None:
        return None
    return Preprocess(
        size=(size[0], size[-1]),
        resize=resize[0] if resize and len(resize) == 1 else None,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        interpolation=_interpolation(transforms.interpolation.value),
    )


def _without_weights(builder: Any) -> nn.Module:
    try:
        module: nn.Module = builder(weights=None, weights_backbone=None)
    except (TypeError, ValueError):  # no backbone of its own: a classifier
        module = builder(weights=None)
    return module


def _timm_data() -> Any:
    return importlib.import_module("timm.data")


def timm_preprocess(config: Mapping[str, Any]) -> Preprocess | None:
    """What timm's data config of a model says; None where it says too little."""
    try:
        height, width = config["input_size"][1:]
        mean, std = tuple(config["mean"]), tuple(config["std"])
        share = float(config.get("crop_pct") or 1.0)
    except (KeyError, TypeError, ValueError):
        return None
    if len(mean) != 3 or len(std) != 3:
        return None
    resize = math.floor(min(height, width) / share) if height == width else None
    return Preprocess((height, width), resize, mean, std, _interpolation(str(config.get("interpolation"))))


def _timm_class_names(module: nn.Module) -> tuple[str, ...]:
    data = _timm_data()
    stated: Sequence[object] | None = getattr(module, "pretrained_cfg", {}).get("label_names")
    if stated:
        return tuple(map(str, stated))
    subset = data.infer_imagenet_subset(module)
    if subset is None:
        return ()
    info = data.ImageNetInfo(subset)
    return tuple(info.index_to_description(i) for i in range(info.num_classes()))


def _interpolation(name: str) -> str:
    return name if name in INTERPOLATIONS else "bicubic"  # lanczos, "random" in training: bicubic is what is nearest


def no_weights(library: str, name: str, reason: str) -> MicrotomeError:
    """The error for weights of `library:name` that cannot be had, with what to do instead."""
    reason = " ".join(reason.split())
    return UsageError(
        f"no weights for {library}:{name} ({reason}); give your own with --weights FILE, or take random ones with "
        f"'{library}:{name}?weights=none'"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without Python's warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _download_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def hub_as_reachable(wanted: bool) -> Iterator[None]:
    """Where the Hugging Face hub does not answer, use its cache alone: its client would retry for most of a minute."""
    try:
        constants: Any = importlib.import_module("huggingface_hub.constants") if wanted else None
    except ImportError:
        constants = None
    if constants is None or constants.HF_HUB_OFFLINE or getproxies() or answers(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except Exception as error:
        raise ConnectionError(f"not in the cache, and {constants.ENDPOINT} does not answer: {error}") from error
    finally:
        constants.HF_HUB_OFFLINE = False


def answers(address: str, timeout: float = _CONNECT_TIMEOUT) -> bool:
    """Whether the server at a URL accepts a connection within `timeout` seconds; only its host and port are read."""
    parts = urlsplit(address)
    accepted = threading.Event()

    def connect() -> None:
        try:
            port = parts.port or (80 if parts.scheme == "http" else 443)
            with socket.create_connection((parts.hostname or "", port), timeout):
                accepted.set()
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)  # a name look-up knows no timeout of its own
    thread.start()
    thread.join(timeout)
    return accepted.is_set()
