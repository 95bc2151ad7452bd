"""What the user asks of an audit, from the command line, a TOML file or Python: one frozen record, defaults once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from microtome.dissect.embedding.seeds import check_seed
from microtome.dissect.models.model import TokenHints
from microtome.dissect.models.preprocess import PreprocessOverrides
from microtome.dissect.models.readouts.names import absolute_units, parse_all
from microtome.dissect.query.rules import Rule, rules_from
from microtome.dissect.toml_files import toml_values
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.places import where_of

IOU_CONVENTIONS = ("image", "mask", "all")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")

_MORE_COUNTS = ("min_images", "segmenter_size", "map_neighbors", "explain_units", "explain_classes")
_SWITCHES = ("keep_activations", "rotation_baseline", "map", "explain", "information")

SCHEDULER = re.compile(r"(tcp|tls|ws|wss|ucx|inproc)://.+")

# How the work is done, not what comes out: a run may be resumed with other values of these.
EXECUTION = ("out", "workers", "cluster")
# What is added to a run, now or later, and changes none of its numbers.
ADDED = ("explain", "explain_units", "explain_classes", "rules")


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """One audit. Everything but EXECUTION and ADDED decides what the numbers are and is fixed for the run's life.

    model, dataset: specs (DESIGN: model spec, dataset spec); layers: names and globs.
    size, resize, mean, std, interpolation: preprocessing in place of the model's own, None = the model's.
    tau: fractions of all positions that exceed a unit's threshold; the first one labels.
    iou: "image", "mask" or "all"; min_iou: a unit whose best IoU exceeds it is a detector; top: patches a unit.
    label_size: (H, W) of the label grid, None = half the model's input; limit: only the first samples.
    batch: images a forward pass; torch_threads: intra-op threads of one forward pass, None = cores / lanes.
    workers: shards at work at once, None = number of cores; with cluster="processes", the number of processes.
    cluster: who does the work: "threads" of this process, "processes", or the address of a Dask scheduler.
    precision: the model's arithmetic: "float32", "tf32" (CUDA), or "bfloat16" and "float16" by autocast.
    keep_activations: False = use each shard's activations and drop them, at the price of a second forward pass.
    free: concepts computed from the pixels of any image: "colors", "textures".
    concepts: a CSV that merges, renames and drops concepts (datasets/views/catalogue.py).
    min_images: concepts in fewer images are dropped.
    segmenter: spec of a model that labels the images; segmenter_confidence: below it a pixel is unlabelled;
    segmenter_size: shorter side of the images that it sees, None = the model's input.
    units: read-outs of every picked layer in place of its axes: "axes", "pca", "pca64", "rotated", a matrix's file, an
    encoder (dissect/models/readouts/names.py); rotation_baseline: beside each layer of axes, a random rotation of it.
    grid, prefix: (h, w) of token streams, and how many prefix tokens they have, where that cannot be found out.
    channels_last: "yes" or "no": the memory layout of the forward pass, "auto" = yes on the CPU where the model can.
    map: whether the run gets a map of its samples for every layer; map_neighbors: nearest neighbours whose affinities
    it keeps, all alike; map_perplexity: in place of that, of Gaussian affinities; map_seed: of what it draws by lot.
    explain: whether pages show what units and classes look for (dissect/audit/stages/explain.py); explain_units: of how
    many units a layer, explain_classes: of how many classes.
    information: whether units and concepts also get thresholds of most information (dissect/maths/information.py), None
    = in audits of generators over their own images.
    rules: what `microtome check` holds the run to (dissect/query/rules.py), None = the rules that the run has.
    """

    model: str
    dataset: str
    layers: tuple[str, ...]
    out: Path | str
    weights: Path | None = None
    size: int | None = None
    resize: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    tau: tuple[float, ...] = (0.005,)
    iou: str = "image"
    min_iou: float = 0.04
    top: int = 12
    label_size: tuple[int, int] | None = None
    limit: int | None = None
    batch: int = 32
    shard_samples: int | None = None
    device: str = "auto"
    torch_threads: int | None = None
    channels_last: str = "auto"
    workers: int | None = None
    cluster: str = "threads"
    precision: str = "float32"
    keep_activations: bool = True
    free: tuple[str, ...] = ()
    concepts: Path | None = None
    min_images: int = 1
    segmenter: str | None = None
    segmenter_confidence: float | None = None
    segmenter_size: int | None = None
    units: tuple[str, ...] = ()
    rotation_baseline: bool = False
    grid: tuple[int, int] | None = None
    prefix: int | None = None
    map: bool = True
    map_perplexity: float | None = None
    map_neighbors: int = 15
    map_seed: int = 0
    explain: bool = False
    explain_units: int = 64
    explain_classes: int = 100
    information: bool | None = None
    rules: tuple[Rule, ...] | None = None

    def __post_init__(self) -> None:
        _check(self)

    def identity(self) -> dict[str, Any]:
        """The settings that decide the numbers, as JSON values."""
        values = {name: _jsonable(value) for name, value in asdict(self).items() if name not in (*EXECUTION, *ADDED)}
        values["model"] = absolute_spec(self.model)
        values["dataset"] = absolute_spec(self.dataset)
        values["weights"] = str(self.weights.resolve()) if self.weights else None
        values["concepts"] = str(self.concepts.resolve()) if self.concepts else None
        values["segmenter"] = absolute_spec(self.segmenter) if self.segmenter else None
        values["units"] = [absolute_units(units) for units in self.units]
        return values

    def explanations(self) -> dict[str, Any]:
        """How many units a layer and how many classes are to be explained."""
        return {"units": self.explain_units, "classes": self.explain_classes}


def config_from_mapping(values: Mapping[str, Any], *, source: str) -> AuditConfig:
    """Build a config from loose values (TOML, run.json); `source` is named in errors.

    Raises UnknownNameError for a key that is no setting, UsageError for one that is missing or of the wrong kind.
    """
    names = [field.name for field in fields(AuditConfig)]
    for key in values:
        if key.replace("-", "_") not in names:
            raise UnknownNameError(f"setting (in {source})", key, names)
    given = {key.replace("-", "_"): value for key, value in values.items() if value is not None}
    missing = [name for name in ("model", "dataset", "layers", "out") if name not in given]
    if missing:
        raise UsageError(f"{source} lacks {', '.join(missing)}; an audit needs model, dataset, layers and out")
    for name in ("layers", "tau", "mean", "std", "free", "units"):
        if name in given and not isinstance(given[name], tuple):
            given[name] = tuple(given[name]) if isinstance(given[name], list) else (given[name],)
    given["out"] = where_of(str(given["out"]))
    for name in ("weights", "concepts"):
        if name in given:
            given[name] = Path(given[name]).expanduser()
    for name in ("label_size", "grid"):
        if name in given:
            size = given[name]
            given[name] = (size, size) if isinstance(size, int) else tuple(size)
    if "rules" in given:
        given["rules"] = rules_from(given["rules"], source=source)
    for name in _SWITCHES:
        if given.get(name) in ("yes", "no"):
            given[name] = given[name] == "yes"
    return AuditConfig(**given)


def config_from_toml(path: Path) -> AuditConfig:
    """Read `audit FILE.toml`: the settings of AuditConfig at top level; relative paths are the shell's."""
    return config_from_mapping(audit_values(path), source=str(path))


def audit_values(path: Path) -> dict[str, Any]:
    """The settings in a TOML file as they stand there, with the rules that it gives a run: none where it names none.

    Raises UsageError where it cannot be read.
    """
    return {"rules": [], **toml_values(path)}


def config_of_run(identity: Mapping[str, Any], *, out: Path | str, workers: int | None) -> AuditConfig:
    """The config that a run was started with, from its run.json."""
    values = {"map": False, **identity, "out": str(out), "workers": workers}  # earlier versions made no maps
    return config_from_mapping(values, source=f"{out}/run.json")


def with_changes(config: AuditConfig, **changes: Any) -> AuditConfig:
    """A copy with some settings replaced and checked again."""
    return replace(config, **changes)


def absolute_spec(spec: str) -> str:
    """`folder:photos` or `nets/mine.py:factory` with the path made absolute, where that path exists; else as given."""
    head, colon, tail = spec.partition(":")
    if head == "generated" and tail.partition("?")[0].isdecimal():
        return spec  # a number of images, whatever a file is called
    if colon and head.endswith(".py") and Path(head).expanduser().exists():
        return f"{Path(head).expanduser().resolve()}:{tail}"
    if colon and tail and Path(tail).expanduser().exists():
        return f"{head}:{Path(tail).expanduser().resolve()}"
    return spec


def preprocess_overrides(settings: Mapping[str, Any]) -> PreprocessOverrides:
    """The preprocessing that the user set in place of the model's own; `size` is the side of a square crop."""
    size = settings.get("size")
    return PreprocessOverrides(
        size=None if size is None else (size, size),
        **{name: settings.get(name) for name in ("resize", "mean", "std", "interpolation")},
    )


def token_hints(settings: Mapping[str, Any]) -> TokenHints:
    """What the user said of token streams."""
    return TokenHints(grid=settings.get("grid"), prefix=settings.get("prefix"))


def _jsonable(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _check(config: AuditConfig) -> None:
    """Raise UsageError for the first setting that makes no sense."""
    numbers = (int, float)
    if config.cluster not in ("threads", "processes") and not SCHEDULER.match(config.cluster):
        raise UsageError(f"--cluster {config.cluster}: threads, processes, or a scheduler such as tcp://host:8786")
    if not config.layers or not all(isinstance(glob, str) and glob for glob in config.layers):
        raise UsageError("no layers given; name some with --layers (microtome inspect MODEL lists them)")
    if not config.tau or not all(isinstance(tau, numbers) and 0 < tau < 1 for tau in config.tau):
        raise UsageError(f"--tau {list(config.tau)}: each is a fraction between 0 and 1, such as 0.005")
    if len(set(config.tau)) < len(config.tau):
        raise UsageError(f"--tau {list(config.tau)}: each fraction once")
    if config.iou not in IOU_CONVENTIONS:
        raise UnknownNameError("IoU convention", config.iou, IOU_CONVENTIONS)
    if config.precision not in PRECISIONS:
        raise UnknownNameError("precision", config.precision, PRECISIONS)
    if config.channels_last not in ("auto", "yes", "no"):
        raise UnknownNameError("value of channels_last", config.channels_last, ("auto", "yes", "no"))
    for name in _SWITCHES:
        if not isinstance(getattr(config, name), bool) and (name, getattr(config, name)) != ("information", None):
            raise UnknownNameError(f"value of {name}", str(getattr(config, name)), ("yes", "no"))
    if config.interpolation is not None and config.interpolation not in INTERPOLATIONS:
        raise UnknownNameError("interpolation", config.interpolation, INTERPOLATIONS)
    if not isinstance(config.min_iou, numbers) or not 0 <= config.min_iou < 1:
        raise UsageError(f"--min-iou {config.min_iou}: a number from 0 up to 1, such as 0.04")
    for name in ("top", "limit", "batch", "shard_samples", "size", "resize", "torch_threads", "workers", *_MORE_COUNTS):
        value = getattr(config, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise UsageError(f"--{name.replace('_', '-')} {value}: a whole number of at least 1")
    sure = config.segmenter_confidence
    if sure is not None and (not isinstance(sure, numbers) or not 0 <= sure <= 1):
        raise UsageError(f"--segmenter-confidence {sure}: a number from 0 to 1, such as 0.5")
    spread = config.map_perplexity
    if spread is not None and (not isinstance(spread, numbers) or not 1 < spread <= 1000):
        raise UsageError(f"--map-perplexity {spread}: a number above 1 and at most 1000, such as 30")
    if config.map_neighbors > 1000:
        raise UsageError(f"--map-neighbors {config.map_neighbors}: a whole number from 1 to 1000")
    check_seed(config.map_seed, "--map-seed")
    if config.segmenter is not None and not config.segmenter.strip():
        raise UsageError("--segmenter: no segmenter is named; leave it out, or give path/file.py:factory")
    if config.segmenter is None and (sure is not None or config.segmenter_size is not None):
        raise UsageError("--segmenter-confidence and --segmenter-size are for a --segmenter; name one")
    for name in ("mean", "std"):
        values = getattr(config, name)
        if values is not None and (len(values) != 3 or not all(isinstance(value, numbers) for value in values)):
            raise UsageError(f"--{name} {list(values)}: three numbers, for red, green and blue in [0, 1]")
    if config.std is not None and min(config.std) <= 0:
        raise UsageError(f"--std {list(config.std)}: each must be above 0")
    if config.label_size is not None and (len(config.label_size) != 2 or min(config.label_size) < 1):
        raise UsageError(f"--label-size {config.label_size}: one number or HEIGHTxWIDTH, at least 1")
    if not all(isinstance(units, str) and units for units in config.units):
        raise UsageError(f"--units {list(config.units)}: each is a word or a file, such as pca or probes.npy")
    parse_all(config.units)
    check_token_hints(config.grid, config.prefix)


def check_token_hints(grid: tuple[int, ...] | None, prefix: int | None) -> None:
    """Raise UsageError where a grid or a number of prefix tokens makes no sense."""
    if grid is not None and (len(grid) != 2 or not all(isinstance(side, int) and side > 0 for side in grid)):
        raise UsageError(f"--grid {'x'.join(map(str, grid))}: HEIGHTxWIDTH in tokens, such as 14x14")
    if prefix is not None and (not isinstance(prefix, int) or prefix < 0):
        raise UsageError(f"--prefix {prefix}: the number of tokens before the patches, at least 0")
