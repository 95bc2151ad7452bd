"""Specs: every form, every way in which one can be wrong."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import torch
from helpers.real import real_kit

from microtome.dissect.models import Preprocess, PreprocessOverrides, load_model, zoo
from microtome.dissect.models.specs import parse_spec
from microtome.storage.errors import UnknownNameError, UsageError

FACTORY = """
import torch
from torch import nn
from sibling_of_the_model import WIDTH

class Net(nn.Sequential):
    pass

def small_net():
    torch.manual_seed(1)
    net = Net(nn.Conv2d(3, WIDTH, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2) if False else nn.Identity())
    net.preprocess = {"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    net.class_names = ["cat", "dog"]
    return net.train()

def bare_net():
    return nn.Conv2d(3, 4, 3)

def broken():
    raise RuntimeError("no luck\\ntoday")

def not_a_module():
    return {"state_dict": 1}

def needs_width(width):
    return nn.Conv2d(3, width, 3)

def lazy():
    return nn.LazyConv2d(3, 3)

def compiled():
    return torch.compile(nn.Sequential(bare_net(), nn.ReLU()), backend="eager")

def parallel():
    net = small_net()
    inner = nn.Sequential(nn.DataParallel(net), torch.compile(bare_net(), backend="eager"))
    inner.preprocess = net.preprocess
    return nn.DataParallel(inner)

constant = 3
instance = bare_net()
"""


@pytest.fixture
def factories(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(FACTORY)
    (tmp_path / "sibling_of_the_model.py").write_text("WIDTH = 4\n")
    return f"{tmp_path}/nets.py"


FLAGS = PreprocessOverrides(size=16, mean=0.5, std=0.5)


def test_a_file_s_factory(factories: str) -> None:
    path_before = list(sys.path)
    model = load_model(f"{factories}:small_net")
    assert sys.path == path_before
    assert not model.module.training
    assert model.preprocess == Preprocess((16, 16), 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "bicubic")
    assert model.class_names == ("cat", "dog")
    assert model.trained
    assert model.parameters == 4 * 27 + 4
    assert sys.modules[type(model.module).__module__].__dict__["WIDTH"] == 4


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    for width in (4, 5):
        path.write_text(f"from torch import nn\ndef net():\n    return nn.Conv2d(3, {width}, 1)\n")
        assert load_model(f"{path}:net", preprocess=FLAGS).module.out_channels == width
    assert not (tmp_path / "__pycache__").exists()


def test_a_module_s_factory() -> None:
    model = load_model("torchvision.models:squeezenet1_1", preprocess=FLAGS)
    assert model.preprocess == Preprocess((16, 16), 16, (0.5,) * 3, (0.5,) * 3, "bicubic")


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("broken", r"nets\.py:broken failed: RuntimeError: no luck today \(nets\.py, line 2\d\)"),
        ("not_a_module", "returned a dict; expected a torch.nn.Module"),
        ("needs_width", "cannot be called without arguments"),
        ("constant", "is a int; expected a function without arguments"),
        ("bare_net", "give --size --mean --std"),
        ("lazy", "run one forward pass in the factory"),
    ],
)
def test_factories_that_do_not_work(factories: str, attribute: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_model(f"{factories}:{attribute}")


def test_a_missing_factory_names_the_near_ones(factories: str) -> None:
    with pytest.raises(UnknownNameError, match="did you mean small_net"):
        load_model(f"{factories}:smal_net")


def test_an_instance_will_do(factories: str) -> None:
    assert isinstance(load_model(f"{factories}:instance", preprocess=FLAGS).module, torch.nn.Conv2d)


@pytest.mark.parametrize("attribute", ["compiled", "parallel"])
def test_wrappers_are_taken_off_everywhere(factories: str, attribute: str) -> None:
    module = load_model(f"{factories}:{attribute}", preprocess=FLAGS).module
    names = [name for name, _ in module.named_modules()]
    assert not any(part in ("_orig_mod", "module") for name in names for part in name.split("."))
    assert not any("Parallel" in type(each).__name__ or "Optimized" in type(each).__name__ for each in module.modules())


def test_a_file_that_cannot_be_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        load_model(f"{tmp_path}/none.py:net")
    (tmp_path / "syntax.py").write_text("def net(:\n")
    with pytest.raises(UsageError, match="cannot be loaded: SyntaxError"):
        load_model(f"{tmp_path}/syntax.py:net")
    (tmp_path / "imports.py").write_text("import no_such_module_at_all\n")
    with pytest.raises(UsageError, match=r"No module named 'no_such_module_at_all' \(imports.py, line 1\)"):
        load_model(f"{tmp_path}/imports.py:net")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("resnet18", "Perhaps torchvision:resnet18 is meant"),
        ("torchvison:resnet18", "did you mean torchvision"),
        ("torchvision:", "is no model"),
        ("no_package.models:net", "there is no module 'no_package'"),
        ("a b:net", "is no model"),
        ("builtin:scenes-cmn", "did you mean scenes-cnn"),
        ("builtin:scenes-cnn?weights=none", "no option of"),
        ("torchvision:resnet81?weights=none", "did you mean resnet18"),
        ("torchvision:resnet18?weight=none", "did you mean weights"),
        ("torchvision:resnet18?weights=IMAGENET1K_V9", "did you mean IMAGENET1K_V1"),
    ],
)
def test_specs_that_name_nothing(spec: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_model(spec)


def test_parsing() -> None:
    assert parse_spec("timm:hf-hub:a/b?weights=none").name == "hf-hub:a/b"
    assert parse_spec("a/b.c/net.py:make").source == "a/b.c/net.py"
    assert parse_spec("a.b:c.d").name == "c.d"


def test_torchvision_random_weights() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (load_model("torchvision:squeezenet1_1?weights=none") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.fingerprint == second.fingerprint
    assert (first.trained, first.weights) == (False, "random, seed 0")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert first.preprocess == Preprocess((224, 224), 256, mean, std, "bilinear")


def test_torchvision_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UsageError, match=r"no network.*--weights FILE.*\?weights=none"):
        load_model("torchvision:squeezenet1_1")
    model = load_model("torchvision:squeezenet1_1", for_inspection=True)
    assert (model.trained, model.fingerprint) == (False, "")


def test_torchvision_weights_and_class_names(monkeypatch: pytest.MonkeyPatch) -> None:
    state = load_model("torchvision:squeezenet1_1?weights=none").module.state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: state)
    model = load_model("torchvision:squeezenet1_1?weights=imagenet1k_v1")
    assert model.trained
    assert model.weights == "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert (len(model.class_names), model.class_names[0]) == (1000, "tench")


def test_torchvision_segmentation_does_not_download_a_backbone() -> None:
    assert load_model("torchvision:lraspp_mobilenet_v3_large?weights=none").preprocess.size == (520, 520)


def test_timm() -> None:
    pytest.importorskip("timm", reason="the extra microtome[timm] is not installed")
    model = load_model("timm:test_resnet?weights=none")
    assert (model.preprocess.size, model.preprocess.resize) == ((160, 160), 168)
    assert model.preprocess.interpolation == "bilinear"
    assert not model.trained
    with pytest.raises(UnknownNameError, match="test_resnet"):
        load_model("timm:test_resnt?weights=none")
    with pytest.raises(UnknownNameError, match=r"test_resnet\.r160_in1k"):
        load_model("timm:test_resnet?weights=r160")


def test_timm_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's client is told to be offline while the weights are looked for, and only then."""
    pytest.importorskip("timm", reason="the extra microtome[timm] is not installed")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(zoo, "answers", lambda address: False)
    monkeypatch.setattr(zoo, "getproxies", dict)
    with pytest.raises(UsageError, match=r"not in the cache, and https?://\S+ does not answer.*weights=none"):
        load_model("timm:test_resnet")
    assert constants.HF_HUB_OFFLINE is False


def test_whether_a_server_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert zoo.answers(f"http://127.0.0.1:{port}/some/path")
    assert not zoo.answers(f"http://127.0.0.1:{port}")


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install microtome\[timm\]"):
        load_model("timm:resnet18?weights=none")


def test_the_fingerprint_tells_models_apart(factories: str) -> None:
    spec = f"{factories}:small_net"
    model = load_model(spec)
    assert load_model(spec).fingerprint == model.fingerprint
    assert load_model(spec, preprocess=PreprocessOverrides(std=0.3)).fingerprint != model.fingerprint
    path = Path(factories).with_name("w.pt")
    state = model.module.state_dict()
    state["0.bias"] = state["0.bias"].clone()
    state["0.bias"][3] += 1e-6
    torch.save(state, path)
    assert load_model(spec, weights=path).fingerprint != model.fingerprint


@pytest.mark.parametrize("factory", ["efficientnet_lite0", "mobilenet_v1"])
def test_real_classifiers(factory: str) -> None:
    model = load_model(f"{real_kit('efficientnet_lite_pytorch')}/classifiers.py:{factory}")
    assert model.preprocess.size == (224, 224)
    assert len(model.class_names) in (1000, 1001)
