"""The shape of run.json: what a run says of itself. Schema version 1.

Keys may be added; a key that is there keeps its meaning. `SCHEMA_VERSION` grows when that cannot hold, and a run
of another version is refused by name.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

SCHEMA_VERSION = 1
STAGES = ("index", "segment", "capture", "thresholds", "tally", "information", "patches", "map", "explain", "report")
SHARDED = ("segment", "capture", "thresholds", "tally", "information")
"""Stages that go shard by shard, and commit each."""


class PreprocessInfo(TypedDict):
    """Shorter side resized to `resize` (None: just covering `size`), centre crop of `size` (H, W), (x - mean) / std."""

    size: list[int]
    resize: int | None
    mean: list[float]
    std: list[float]
    interpolation: str


class GeneratorPart(TypedDict):
    """What a generator of images takes and gives: the shape of one latent (None: it takes images), the lowest and the
    highest value of its images, their [H, W], and of a conditional one the number and the names of its classes."""

    latent_shape: list[int] | None
    output_range: list[float]
    size: list[int]
    classes: int
    class_names: list[str]


class ModelInfo(TypedDict):
    """The model: what the user wrote, what was loaded, and a hash of both. generator: where it is one."""

    spec: str
    fingerprint: str
    trained: bool
    weights: str
    class_names: list[str]
    parameters: int
    preprocess: PreprocessInfo
    generator: NotRequired[GeneratorPart]


class RemarkInfo(TypedDict):
    """What a dataset remarked about itself: a sentence, for how many things it holds, and some of them."""

    text: str
    count: int
    examples: list[str]


class DataInfo(TypedDict):
    """The dataset; `samples` counts those of this run (after --limit), `unreadable` those that were skipped.

    order: where the samples are not in the dataset's own order, under which digest theirs is stored (storage/order.py).
    growth: while a run grows: by former key, how many shards of the capture stay.
    """

    spec: str
    fingerprint: str
    samples: int
    plane_names: list[str]
    image_label_slots: int
    splits: list[str]
    categories: list[str]
    class_names: list[str]
    unreadable: int
    unknown_ids: dict[str, dict[str, int]]
    order: NotRequired[str]
    remarks: NotRequired[list[RemarkInfo]]
    growth: NotRequired[dict[str, int]]


class SegmenterInfo(TypedDict):
    """Who gave the labels of the planes `segmenter`: what the user wrote, a hash of what was loaded, its labels and
    their categories, maps an image, below which confidence a pixel is unlabelled, and the (H, W) it has seen."""

    spec: str
    fingerprint: str
    labels: list[str]
    categories: list[str]
    planes: int
    confidence: float | None
    size: list[int]


class ReadoutInfo(TypedDict):
    """How units are read out of the layer `base`, which has `inputs` units: in place of its axes, other directions.

    kind: "pca", "rotated", "matrix" or "encoder"; source: what the user wrote, paths absolute; fingerprint: of the
    matrices in the run (storage/readouts.py), or of the encoder; images: that it was fitted on, 0 where it was not.
    """

    base: str
    kind: str
    source: str
    fingerprint: str
    inputs: int
    images: int


class LayerEntry(TypedDict):
    """One dissected layer. An activation is its stored float16 times `scale`, a power of two.

    readout: where the units are not the layer's own; layout: in words, where the module's output is not (B, C, h, w).
    """

    name: str
    folder: str
    kind: str
    units: int
    grid: list[int]
    scale: float
    receptive_field: dict[str, Any]
    readout: NotRequired[ReadoutInfo]
    layout: NotRequired[str]


class ImportanceInfo(TypedDict):
    """What importance.parquet of a layer was measured with. classes: those that occur, as its column `class` numbers
    them; class_indices: their numbers among the model's classes; truth: "labels", or "predictions" where the untouched
    model's answers stand for them; value: what removed units were set to, "zero" or "mean"; images: those measured;
    seconds: of work; accuracy: of the untouched model."""

    classes: list[str]
    class_indices: list[int]
    truth: str
    value: str
    images: int
    seconds: float
    accuracy: float


class CausalInfo(TypedDict):
    """What causal.parquet of a layer was measured with. data: the latents, in words of a dataset; samples: how many;
    quantile: of its own values, at which a unit was inserted; gradients: what alpha was optimised through, "" = there
    is no alpha; alpha: by concept how it was optimised; pupil: how far a pupil agrees with the segmenter, where that
    gave no gradients; seconds: of work."""

    data: str
    samples: int
    quantile: float
    gradients: str
    alpha: dict[str, dict[str, Any]]
    pupil: dict[str, Any] | None
    seconds: float


class QualityInfo(TypedDict):
    """How far a map can be believed, on `sample` of its points and their `k` neighbours.

    trustworthiness: from 0 to 1 (Venna and Kaski, 2001); recall: share of the neighbours in the layer that are
    neighbours on the map; purity, purity_features: share of the neighbours on the map, and in the layer, that have the
    class of the point, None without class labels; warnings: sentences that say where the map should not be believed.
    """

    sample: int
    k: int
    trustworthiness: float
    recall: float
    purity: float | None
    purity_features: float | None
    warnings: list[str]


class MapInfo(TypedDict):
    """How map.parquet of a layer was made, and how good it is.

    settings: everything that it depends on beside the run; engine: what laid it out; kl: Kullback-Leibler divergence
    that was reached, 0 where none was computed; samples: points on it; seconds: that it took; neighbors: of each
    point that it takes account of; neighbors_recall: share of the true ones among them, as measured; aligned_to: the
    layer whose map it begins from and is turned onto, "" = none.
    """

    settings: dict[str, Any]
    engine: str
    kl: float
    iterations: int
    samples: int
    seconds: float
    neighbors: int
    neighbors_recall: NotRequired[float]
    quality: QualityInfo
    aligned_to: str


class ExplainedLayer(TypedDict):
    """Pictures of the units of a layer: how many units have some, which method made those of patches ("" = none), why
    others could not ("" where the first choice could), and why there is no synthesised image ("" where there is)."""

    units: int
    method: str
    why: str
    no_synthesis: str


class ExplanationsInfo(TypedDict):
    """What pictures that explain units and classes were asked for, and what there is.

    settings: everything that they depend on beside the run; layers: those that are done; classes: how many have
    pictures, None until they are done; why: there are none of classes, "" where there are some.
    """

    settings: dict[str, Any]
    layers: dict[str, ExplainedLayer]
    classes: int | None
    why: str


class RuleInfo(TypedDict):
    """A rule that the run is held to, as it was written: one of none, some and units, a query; beside units, how many
    there have to be."""

    name: str
    none: NotRequired[str]
    some: NotRequired[str]
    units: NotRequired[str]
    at_least: NotRequired[int]
    at_most: NotRequired[int]


class ShardInfo(TypedDict):
    """Samples in a shard, samples in a chunk, number of shards."""

    samples: int
    chunk: int
    count: int


class EstimateInfo(TypedDict):
    """What the pilot expects of one sample: bytes on disk, with activations kept and without, and seconds."""

    bytes_per_sample: float
    bytes_per_sample_streamed: float
    seconds_per_sample: float


class StageInfo(TypedDict):
    """`state` is pending, running or done; `seconds` is the time spent so far."""

    state: str
    seconds: float


class RunInfo(TypedDict):
    """All of run.json. Stage segment is there where a segmenter is, stages information, map and explain where they are
    wanted.

    importance, causal, map: of the layers that it was measured of, that have one; more_arrays: arrays of samples that
    the run has and runs of earlier versions lack; maps_left_out: layers that are to have no map in a run of an audit
    that asked for maps.
    """

    schema_version: int
    microtome: str
    config: dict[str, Any]
    model: ModelInfo
    data: DataInfo
    layers: list[LayerEntry]
    label_size: list[int]
    shards: ShardInfo
    estimate: EstimateInfo
    stages: dict[str, StageInfo]
    versions: dict[str, str]
    segmenter: NotRequired[SegmenterInfo]
    importance: NotRequired[dict[str, ImportanceInfo]]
    causal: NotRequired[dict[str, CausalInfo]]
    map: NotRequired[dict[str, MapInfo]]
    maps_left_out: NotRequired[list[str]]
    rules: NotRequired[list[RuleInfo]]
    explanations: NotRequired[ExplanationsInfo]
    more_arrays: NotRequired[list[str]]


LATER_PARTS = {"estimate": EstimateInfo(bytes_per_sample=0.0, bytes_per_sample_streamed=0.0, seconds_per_sample=0.0)}
"""Parts that runs of earlier versions lack, with what is taken in their place."""
