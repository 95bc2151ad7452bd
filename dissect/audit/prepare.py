"""Before the first shard: open model and data, decide shards, scales and layers, and make or reopen the run."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch

from microtome.datasets.base import ImageDataset
from microtome.dissect.audit.budget import NO_LIMITS, Budget, resident_bytes
from microtome.dissect.audit.config import (
    AuditConfig,
    config_of_run,
    with_changes,
)
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.data import open_data, open_images, refuse_unlabelled, refuse_unmatched, segments_of
from microtome.dissect.audit.explained import wanted_explanations
from microtome.dissect.audit.job import Division, Job, choose_device, load_configured
from microtome.dissect.audit.pilot import Pilot, label_size_of, run_pilot
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.readouts import changed_matrices, readout_files, readout_info, units_as_compared
from microtome.dissect.audit.schedule import Executor
from microtome.dissect.audit.stages.segment import try_segmenter
from microtome.dissect.audit.stopping import StopSignal
from microtome.dissect.generators.data import is_generated
from microtome.dissect.models import (
    LayerInfo,
    Model,
)
from microtome.dissect.models.readouts import Readout
from microtome.storage.arrays import MORE_ARRAYS
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.places import open_place, where_of
from microtome.storage.run import Run, folder_name
from microtome.storage.schema import (
    SCHEMA_VERSION,
    STAGES,
    DataInfo,
    GeneratorPart,
    LayerEntry,
    ModelInfo,
    PreprocessInfo,
    RunInfo,
    ShardInfo,
    StageInfo,
)
from microtome.storage.shards import CHUNK_SAMPLES, plan_shards

ADDED_LATER: dict[str, object] = {
    "precision": "float32",
    "keep_activations": True,
    "free": [],
    "min_images": 1,
    "units": [],
    "rotation_baseline": False,
    "grid": None,
    "prefix": None,
    "map_perplexity": None,
    "map_neighbors": 15,
    "map_seed": 0,
    "information": False,
}
"""Settings that older runs do not name, and what they were then."""
TOLD_APART = ("model", "dataset", "weights", "concepts", "limit", "map")
"""Settings that may be called otherwise, where contents count (a fingerprint, a number of samples), or may differ."""
VERSIONED = ("torch", "torchvision", "numpy", "zarr", "dask", "pandas", "numba")


def prepare(
    config: AuditConfig,
    executor: Executor,
    *,
    budget: Budget = NO_LIMITS,
    stop: StopSignal | None = None,
    existing: bool = True,
) -> Job:
    """Open everything that `config` names and the run it belongs to, new or (where `existing`) resumed.

    A new run is made where the model runs: what its first images need is found out there.
    Raises UsageError for what cannot be opened, RunMismatchError naming what differs from the run on disk.
    """
    is_new = not (existing and Run.exists(config.out))
    refuse_unlabelled(config)
    if is_new and len(open_images(config, None)) < 1:
        raise UsageError(f"{config.dataset} holds no images")
    model = executor.where_the_model_runs(create, _from_anywhere(config), budget) if is_new else None
    if is_new and not Run.exists(config.out):
        raise UsageError(
            f"a worker of {executor.name} has made the run {config.out}, but it is not there for this process; "
            "give --out a place that all of them share"
        )
    run = Run.open(config.out)
    config = _left_open(config, run)
    dataset = open_data(config, run)
    samples = min(len(dataset), config.limit or len(dataset))
    if not is_new:
        model = load_configured(config)
        refuse_unmatched(config, model)
        _refuse_mismatch(run, config, model, dataset, samples)
    run.clean()
    job = Job(
        config=config, run=run, dataset=dataset, division=divide(config), executor=executor, stop=stop or StopSignal()
    )
    if model is not None:
        job.keep_model(model)
    if not is_new:
        _ = job.readouts  # raises where they are others
        if "segmenter" in run.info:
            _ = job.segmenter  # likewise
    return job


def _from_anywhere(config: AuditConfig) -> AuditConfig:
    """The config with what it names by path made absolute: a worker may be in another folder."""
    identity = config.identity()
    return with_changes(
        config,
        out=where_of(open_place(config.out).url),
        model=identity["model"],
        dataset=identity["dataset"],
        weights=config.weights.resolve() if config.weights else None,
        concepts=config.concepts.resolve() if config.concepts else None,
        segmenter=identity["segmenter"],
        units=tuple(identity["units"]),
    )


def create(config: AuditConfig, budget: Budget) -> Model:
    """Make a new run in `config.out`, with everything decided that its numbers depend on; gives its model."""
    images = open_images(config, None)
    samples = min(len(images), config.limit or len(images))
    config = with_changes(config, device=str(choose_device(config.device)))
    division = divide(config)
    model = load_configured(config)
    refuse_unmatched(config, model)
    segmenter = try_segmenter(config, model.preprocess, images, samples, division.device)
    dataset = open_data(config, None, segments_of(segmenter))
    pilot = run_pilot(config, model, dataset, samples, division)
    config = with_changes(
        config,
        torch_threads=division.torch_threads,
        channels_last="yes" if pilot.channels_last else "no",
        information=is_generated(config.dataset) if config.information is None else config.information,
    )
    budget.refuse_disk(pilot.estimate, samples, kept=config.keep_activations)
    fits = budget.samples_a_shard(pilot.bytes_in_memory, division.lanes, resident_bytes())
    info = _plan(config, model, dataset, samples, pilot, fits)
    if segmenter is None:
        del info["stages"]["segment"]
    else:
        info["segmenter"] = segmenter
    if not config.information:
        del info["stages"]["information"]
    if not config.map:
        del info["stages"]["map"]
    if not config.explain:
        del info["stages"]["explain"]
    else:
        info["explanations"] = wanted_explanations(config.explanations())
    Run.create(config.out, info, readout_files(pilot.readouts))
    return model


def reopen(path: Path | str, executor: Executor, *, workers: int | None = None, stop: StopSignal | None = None) -> Job:
    """The job of the run in `path`, as it was started: what `--resume` continues."""
    run = Run.open(path)
    return prepare(config_of_run(run.info["config"], out=path, workers=workers), executor, stop=stop)


def join(path: Path | str, executor: Executor, cores: int) -> Job:
    """The job of the run in `path` for a process that helps with it, on `cores` of its machine's cores."""
    run = Run.open(path)
    config = config_of_run(run.info["config"], out=path, workers=cores)
    return Job(config, run, open_data(config, run), divide(config, cores), executor)


def divide(config: AuditConfig, cores: int | None = None) -> Division:
    """Divide a machine's cores. On the CPU two forward passes run side by side, each on half of the cores; beside an
    accelerator, the cores decode, compress and write.

    A run's threads in one pass stay what they were at its start: on other machines and clusters, too.
    """
    device = torch.device("cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu")
    if config.device != "auto":
        device = torch.device(config.device)
    cores = cores or available_cores()
    passes = 2 if cores > 1 and device.type == "cpu" else 1
    threads = config.torch_threads or _default_threads(config, cores // passes if device.type == "cpu" else 1)
    gains = device.type == "cpu" or config.precision != "float32"
    wanted = config.channels_last == "yes" or (config.channels_last == "auto" and gains)
    return Division(
        device=device,
        workers=config.workers or cores,
        lanes=passes + 1 if device.type == "cpu" else passes + max(3, cores // 2),
        passes=passes,
        torch_threads=threads,
        channels_last=wanted,
        precision=config.precision,
    )


def _default_threads(config: AuditConfig, threads: int) -> int:
    """Threads of one forward pass where worker processes may share this machine's cores."""
    if config.cluster == "threads":
        return max(1, threads)
    return max(1, available_cores() // (config.workers or available_cores()))


def _left_open(config: AuditConfig, run: Run) -> AuditConfig:
    """The config with what it leaves open (None or auto) taken from the run that is to be resumed."""
    made_with = {**ADDED_LATER, **run.info["config"]}
    open_ = {"device": "auto", "torch_threads": None, "channels_last": "auto", "information": None}
    return with_changes(
        config, **{name: made_with[name] for name, value in open_.items() if getattr(config, name) == value}
    )


# A new run


def _plan(
    config: AuditConfig, model: Model, dataset: ImageDataset, samples: int, pilot: Pilot, most: int | None
) -> RunInfo:
    infos, scales, fields = pilot.infos, pilot.scales, pilot.fields
    shards = plan_shards(samples, max(info.bytes_per_image for info in infos), config.shard_samples)
    if most is not None and most < shards.shard:
        shards = plan_shards(samples, 1, most // CHUNK_SAMPLES * CHUNK_SAMPLES or most)
    splits = list(dict.fromkeys(dataset.entry(index).split for index in range(samples)))
    return RunInfo(
        schema_version=SCHEMA_VERSION,
        microtome=version("microtome"),
        config=config.identity(),
        model=model_info(model),
        data=DataInfo(
            spec=config.dataset,
            fingerprint=dataset.fingerprint(),
            samples=samples,
            plane_names=list(dataset.plane_names),
            image_label_slots=dataset.image_label_slots,
            splits=splits,
            categories=list(dict.fromkeys(concept.category for concept in dataset.concepts)),
            class_names=list(dataset.class_names),
            unreadable=0,
            unknown_ids={},
        ),
        layers=[
            _layer_entry(info, scales[info.name], fields[info.name].to_dict(), pilot.readouts.get(info.name))
            for info in infos
        ],
        label_size=list(label_size_of(config, model)),
        shards=ShardInfo(samples=shards.shard, chunk=shards.chunk, count=shards.count),
        estimate=pilot.estimate,
        stages={stage: StageInfo(state="pending", seconds=0.0) for stage in STAGES},
        versions={"python": platform.python_version(), **{name: version(name) for name in VERSIONED}},
        more_arrays=list(MORE_ARRAYS),
    )


def model_info(model: Model) -> ModelInfo:
    """What run.json says of a model."""
    preprocess = asdict(model.preprocess)
    info = ModelInfo(
        spec=model.spec,
        fingerprint=model.fingerprint,
        trained=model.trained,
        weights=model.weights,
        class_names=list(model.class_names),
        parameters=sum(parameter.numel() for parameter in model.module.parameters()),
        preprocess=PreprocessInfo(
            size=list(preprocess["size"]),
            resize=preprocess["resize"],
            mean=list(preprocess["mean"]),
            std=list(preprocess["std"]),
            interpolation=preprocess["interpolation"],
        ),
    )
    if model.generator is not None:
        made = model.generator
        info["generator"] = GeneratorPart(
            latent_shape=None if made.latent_shape is None else list(made.latent_shape),
            output_range=list(made.output_range),
            size=list(made.size),
            classes=made.classes,
            class_names=list(made.class_names),
        )
    return info


def _layer_entry(
    info: LayerInfo, scale: float, receptive_field: dict[str, object], readout: Readout | None
) -> LayerEntry:
    entry = LayerEntry(
        name=info.name,
        folder=folder_name(info.name),
        kind=info.kind,
        units=info.units,
        grid=list(info.grid),
        scale=scale,
        receptive_field=receptive_field,
    )
    if info.layout not in ("", "x".join(map(str, info.grid))):  # else it lies as (B, C, h, w) does
        entry["layout"] = info.layout
    if readout is not None:
        entry["readout"] = readout_info(readout)
    return entry


# An existing run


def _refuse_mismatch(run: Run, config: AuditConfig, model: Model, dataset: ImageDataset, samples: int) -> None:
    """Raise RunMismatchError that names everything in which the request differs from the run."""
    info = run.info
    differences = []
    if info["model"]["fingerprint"] != model.fingerprint:
        differences.append(f"model or weights (the run has {info['model']['spec']}, {info['model']['weights']})")
    if info["data"]["fingerprint"] != dataset.fingerprint():
        differences.append(
            f"data (the run has {info['data']['spec']}; its images, masks or options differ now; "
            "if images were only added: microtome extend)"
        )
    if info["data"]["samples"] != samples:
        differences.append(f"number of samples (the run has {info['data']['samples']}, asked for {samples})")
    made_with = info["config"]
    for name, asked in config.identity().items():
        same_thing = name in TOLD_APART
        had = made_with.get(name, ADDED_LATER.get(name))
        if name == "units":
            had, asked = units_as_compared(had), units_as_compared(asked)
        if not same_thing and had != asked:
            differences.append(f"{name} (the run has {had}, asked for {asked})")
    differences += [f"matrix in {source}" for source in changed_matrices(run, config)]
    if differences:
        raise RunMismatchError(
            f"{run.url} was made with another {'; another '.join(differences)}. "
            "Choose another --out, or ask for what the run was made with"
        )
    if changed := _version_changes(info["versions"]):
        say(f"note: {', '.join(changed)} since the run was started")


def _version_changes(versions: dict[str, str]) -> list[str]:
    return [
        f"{name} changed from {versions[name]} to {version(name)}"
        for name in VERSIONED
        if name in versions and versions[name] != version(name)
    ]
