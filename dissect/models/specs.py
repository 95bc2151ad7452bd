"""From a model spec to a model that can be dissected.

builtin:scenes-cnn                    a network that comes with Microtome; builtin:scenes-gan, a generator
torchvision:resnet18                  its default weights, from the cache or downloaded
torchvision:resnet18?weights=none     random weights from seed 0 (or the name of a weights enum entry)
timm:vit_small_patch16_224            likewise; needs the extra microtome[timm]
hf:OWNER/NAME, hf:FOLDER              a model of transformers; needs the extra microtome[transformers]
hf:vit?weights=none                   the default of a model type, with random weights
package.module:factory                a function without arguments that returns a torch.nn.Module
path/file.py:factory                  the same, in a file
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from torch import nn
from torch.nn.parameter import is_lazy

from microtome.dissect.models.factories import build_from_file, build_from_module
from microtome.dissect.models.generators import GeneratorInfo, examine, is_generator
from microtome.dissect.models.model import Model, TokenHints, fingerprint, placeholder_of
from microtome.dissect.models.preprocess import Preprocess, PreprocessOverrides, of_module, resolve, untouched
from microtome.dissect.models.transformers_zoo import build_hf
from microtome.dissect.models.weights import load_weights
from microtome.dissect.models.wrappers import unwrap
from microtome.dissect.models.zoo import DEFAULT, NONE, ZooModel, build_timm, build_torchvision, seeded
from microtome.storage.errors import UnknownNameError, UsageError

BUILTIN = {
    "scenes-cnn": ("microtome.dissect.builtin.cnn", "scenes_cnn"),
    "scenes-vit": ("microtome.dissect.builtin.vit", "scenes_vit"),
    "scenes-gan": ("microtome.dissect.builtin.gan", "scenes_gan"),
}
_ZOOS: Mapping[str, Callable[[str, str], ZooModel]] = {
    "torchvision": build_torchvision,
    "timm": build_timm,
    "hf": build_hf,
}
_FORMS = (
    "a spec is builtin:NAME, torchvision:NAME, timm:NAME, hf:NAME or hf:FOLDER (the last four with ?weights=none for "
    "random weights), package.module:factory or path/file.py:factory"
)


@dataclass(frozen=True)
class Spec:
    """A parsed spec: `scheme` is "builtin", "torchvision", "timm", "hf", "file" or "module"."""

    scheme: str
    source: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)


def load_model(
    spec: str,
    *,
    weights: Path | None = None,
    preprocess: PreprocessOverrides | None = None,
    for_inspection: bool = False,
    tokens: TokenHints = TokenHints(),  # noqa: B008 - frozen
    generators: bool = False,
    others: bool = True,
) -> Model:
    """Load the model that `spec` names, in eval mode.

    weights: a file with a state dict, in place of the spec's own; preprocess: the user's flags, which win over what
    the model states; for_inspection: weights do not matter, so random ones stand in for those that would have to be
    found, and the fingerprint is left empty; tokens: where the patches of token streams are, if that has to be said;
    generators: whether a generator of images will do (`generators.py`), too; others: whether other models will do.

    Raises UsageError (or UnknownNameError) when any of these cannot be used.
    """
    parsed = parse_spec(spec)
    with seeded():  # a factory that draws random weights gives the same ones when the run is resumed
        made = _build(parsed, own_weights=weights is None and not for_inspection)
    module = unwrap(made.module)
    for name in ("preprocess", "class_names", "num_prefix_tokens"):  # stated on a wrapper that is gone now
        if name in vars(made.module) and not hasattr(module, name):
            setattr(module, name, vars(made.module)[name])
    if not others and not is_generator(module):
        raise UsageError(
            f"{spec} is no generator: its module states no output_range, such as (-1, 1), and no latent_shape, such as "
            "(100,); give one that makes images"
        )
    _check_materialised(module, spec)
    words, names = made.weights, _class_names(module) or made.class_names
    if weights is not None and not for_inspection:
        load_weights(module, weights)
        words = f"file {weights}"
    module.eval()
    stated = of_module(module, spec) or made.preprocess
    generator = _generator(spec, module, stated, preprocess, allowed=generators) if is_generator(module) else None
    prepared = resolve(spec, stated, preprocess) if generator is None else untouched(generator.size)
    return Model(
        spec=spec,
        module=module,
        preprocess=prepared,
        class_names=names if generator is None else (),
        trained=not words.startswith("random"),
        weights=words,
        fingerprint="" if for_inspection else fingerprint(module, prepared, generator),
        tokens=tokens,
        generator=generator,
    )


def _generator(
    spec: str, module: nn.Module, stated: Preprocess | None, given: PreprocessOverrides | None, *, allowed: bool
) -> GeneratorInfo:
    """What is to be known of a generator. Raises UsageError where none is wanted, or it does not keep its contract."""
    if not allowed:
        raise UsageError(
            f"{spec} is a generator, which makes images and answers nothing about them; dissect it by its own images: "
            f"microtome audit {spec} generated:1000 --segmenter SPEC"
        )
    takes_images = getattr(module, "latent_shape", None) is None
    flags = given.given() if given else {}
    if flags and not takes_images:
        raise UsageError(
            f"{spec} is a generator and takes no images; leave out {', '.join(f'--{name}' for name in flags)}"
        )
    inputs = resolve(spec, stated, given) if takes_images and (stated is not None or flags) else None
    return examine(module, spec, inputs, placeholder_of(module))


def parse_spec(spec: str) -> Spec:
    """Split a spec into its parts; raises UsageError for an unknown form, UnknownNameError for an unknown option."""
    scheme, colon, rest = spec.partition(":")
    if not colon or not rest or not scheme:
        near = " Perhaps torchvision:" + spec + " is meant." if not colon and spec.isidentifier() else ""
        raise UsageError(f"{spec!r} is no model; {_FORMS}.{near}")
    if scheme == "builtin" or scheme in _ZOOS:
        name, _, query = rest.partition("?")
        return Spec(scheme, scheme, name, _options(query, () if scheme == "builtin" else ("weights",), spec))
    source, _, attribute = spec.rpartition(":")
    if source.endswith(".py") or "/" in source or "\\" in source:
        return Spec("file", source, attribute)
    if not all(part.isidentifier() for part in source.split(".")):
        raise UsageError(f"{spec!r} is no model; {_FORMS}")
    return Spec("module", source, attribute)


def _options(query: str, known: tuple[str, ...], spec: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key not in known:
            raise UnknownNameError(f"option of {spec}", key, known)
    return options


def _build(spec: Spec, *, own_weights: bool) -> ZooModel:
    if spec.scheme in _ZOOS:
        wanted = spec.options.get("weights", DEFAULT) or DEFAULT
        if wanted.lower() == NONE or not own_weights:
            wanted = NONE
        return _ZOOS[spec.scheme](spec.name, wanted)
    if spec.scheme == "file":
        made = build_from_file(Path(spec.source).expanduser(), spec.name)
    elif spec.scheme == "module":
        made = _from_module(spec)
    elif spec.name in BUILTIN:
        module, factory = BUILTIN[spec.name]
        made = getattr(importlib.import_module(module), factory)()
    else:
        raise UnknownNameError("built-in model", spec.name, BUILTIN)
    return ZooModel(made, None, (), "built in" if spec.scheme == "builtin" else "the factory's own")


def _from_module(spec: Spec) -> nn.Module:
    try:
        return build_from_module(spec.source, spec.name)
    except UsageError as error:
        if "." in spec.source or "there is no module" not in str(error):
            raise
        schemes = UnknownNameError("kind of model", spec.source, ["builtin", *_ZOOS])
        raise UsageError(f"{error}; {schemes if schemes.near else _FORMS}") from error


def _class_names(module: nn.Module) -> tuple[str, ...]:
    names = getattr(module, "class_names", None)
    if names is None or isinstance(names, str) or callable(names):
        return ()
    return tuple(str(name) for name in names)


def _check_materialised(module: nn.Module, spec: str) -> None:
    lazy = [name for name, parameter in module.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise UsageError(
            f"{spec}: {lazy[0]} has no shape yet; run one forward pass in the factory before returning the module"
        )


__all__ = ["BUILTIN", "Preprocess", "Spec", "load_model", "parse_spec"]
