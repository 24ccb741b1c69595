"""A network from a user's file: the halves are the whole, the weights are the file's, and each mistake is named."""

import random
import struct
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cem.config import Checkpoint, Decoder, OwnModel, Run, ShadowModel, SyntheticDataset, Training
from cem.models import make_split, seed_dropout
from cem.models.check import check_model
from cem.models.checkpoint import read_tensors
from cem.models.own import make_network
from cem.models.split import ModelError, build_split

NET = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(4))
        self.head = nn.Linear(4 * 64, classes)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
    def forward(self, x):
        return self.head(self.scale * self.features(x).flatten(1))

def build(num_classes=10):
    return Net(num_classes)

class Functional(Net):
    def forward(self, x):
        return self.head(F.dropout(self.features(x), 0.5, self.training).flatten(1))

def functional():
    return Functional(10)

class Auxiliary(Net):
    def forward(self, x):
        out = super().forward(x)
        return (out, 0.3 * out) if self.training else out

def auxiliary():
    return Auxiliary(10)

class Counting(Net):
    def forward(self, x):
        images = x.size(0)
        return self.head(self.features(x).view(images, -1))

def counting():
    return Counting(10)

class Shaped(Net):
    def forward(self, x):
        images, _, _, _ = x.shape
        return self.head(self.features(x).view(images, -1))

def shaped():
    return Shaped(10)

class Standard(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias, padding=1)

def standard():
    net = Net(10)
    net.features[0] = Standard(3, 4, 3)
    return net

def lazy():
    net = Net(10)
    net.features[0] = nn.LazyConv2d(4, 3, padding=1)
    net.head = nn.LazyLinear(10)
    return net

def no_statistics():
    net = Net(10)
    net.features[1] = nn.BatchNorm2d(4, track_running_stats=False)
    return net

class Less(Net):
    def forward(self, x):
        out = super().forward(x)
        return out - out.mean(0)

def less():
    return Less(10)

class Branching(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)

def branching():
    return Branching(10)

class Random(Net):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))

def random():
    return Random(10)

class Always(nn.Dropout):
    def forward(self, x):
        return F.dropout(x, self.p, True)

def always():
    net = Net(10)
    net.features[3] = nn.Sequential(net.features[3], Always(0.5))
    return net

class Means(nn.AdaptiveAvgPool2d):
    def forward(self, x):
        return 3 * super().forward(x)

def pooled():
    net = Net(10)
    net.features[3] = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Dropout(0.5))
    return net

def hooked():
    net = Net(10)
    net.features[3] = nn.Sequential(Means(8), nn.Dropout(0.5))
    net.features[3][1].register_forward_hook(lambda layer, given, out: 2 * out)
    return net

def plain_dropout():
    net = Net(10)
    net.features[3] = nn.Sequential(net.features[3], nn.Dropout(0.5))
    return net

def by_channel():
    net = Net(10)
    net.features[3] = nn.Sequential(net.features[3], nn.Dropout2d(0.5))
    return net

def leaky():
    net = Net(10)
    net.features[2] = nn.RReLU()
    return net

def needs_more(depth, *, num_classes):
    return Net(num_classes)

def brought():
    net = Net(10)
    for values in net.parameters():
        values.data.fill_(0.1)
    return net

def unkept():
    net = Net(10)
    net.register_buffer("scale", torch.rand(1), persistent=False)
    return net

class InPlace(Net):
    def forward(self, x):
        out = self.features(x)
        F.threshold(out, 0.2, 0.0, inplace=True)
        return self.head(out.flatten(1))

def in_place():
    net = InPlace(10)
    nn.init.zeros_(net.head.weight)
    return net

class Shared(Net):
    def forward(self, x):
        return self.head(self.features[2](self.features(x)).flatten(1))

def shared():
    return Shared(10)

def pairs():
    net = Net(10)
    net.features[3] = nn.MaxPool2d(4, return_indices=True)
    return net

class First(nn.Module):
    def forward(self, x):
        return x[0]

def indices():
    net = pairs()
    net.features.append(First())
    return net

def nothing():
    return None

def broken():
    raise RuntimeError("out of cheese")

"""
IMAGE = (3, 32, 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def own(folder: Path, **settings: object) -> OwnModel:
    return OwnModel(**{"path": str(folder / "net.py"), "cut": "features.2", **settings})


def state(seed: int = 0, classes: int = 10) -> dict[str, torch.Tensor]:
    """Of the file's network, with numbers of its own."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"features.0.weight": (4, 3, 3, 3), "head.weight": (classes, 256), "head.bias": (classes,)}
    shapes |= {f"features.{name}": (4,) for name in ("0.bias", "1.weight", "1.bias", "1.running_mean")}
    found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return found | {
        "features.1.running_var": torch.rand(4, generator=generator) + 0.5,
        "features.1.num_batches_tracked": torch.tensor(7),
    }


def logits(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """What the network gives with these weights, written down once more."""
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten()]
    whole = nn.Sequential(OrderedDict(features=nn.Sequential(*layers), head=nn.Linear(256, 10))).eval()
    whole.load_state_dict(weights)
    with torch.no_grad():
        return whole.head(2.0 * whole.features(images))


def images() -> torch.Tensor:
    return torch.rand(3, *IMAGE, generator=torch.Generator().manual_seed(5))


def found(cfg: OwnModel) -> torch.Tensor:
    encoder, classifier = make_split(cfg, IMAGE, 10)
    with torch.no_grad():
        return classifier.eval()(encoder.eval()(images()))


def checked(cfg: OwnModel, *, trained: bool = False, classes: int = 10) -> None:
    training = Training(epochs=2) if trained else Training(epochs=0)
    check_model(Run(dataset=SyntheticDataset(), model=cfg, training=training, noise_std=0.0), [], classes)


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "entry", "two files"])
def test_the_halves_are_the_network_with_the_files_weights(folder: Path, kind: str) -> None:
    weights = state()
    file: object = str(folder / "w.pt")
    if kind == "safetensors":
        file = str(folder / "w.safetensors")
        save_file(weights, file)
    elif kind == "state dict":
        torch.save(weights, file)
    elif kind == "entry":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}}, file)
        file = Checkpoint(path=file, entry="state_dict", keys={"module.": ""})
    else:  # as ResSFL and CEM leave them: client and server apart, each with its own names from 0
        client = {name.removeprefix("features."): one for name, one in weights.items() if name[0] == "f"}
        torch.save(client, folder / "checkpoint_client.tar")
        server = {"classifier.weight": weights["head.weight"], "classifier.bias": weights["head.bias"]}
        torch.save(server | {"unused.weight": torch.zeros(1)}, folder / "checkpoint_cloud.tar")
        file = (
            Checkpoint(path=str(folder / "checkpoint_client.tar"), keys={"": "features."}),
            Checkpoint(path=str(folder / "checkpoint_cloud.tar"), keys={"classifier.": "head.", "unused.": None}),
        )
    torch.testing.assert_close(found(own(folder, weights=file)), logits(weights, images()))


def test_images_are_standardised_as_the_settings_say(folder: Path) -> None:
    save_file(state(), folder / "w.safetensors")
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    cfg = own(folder, weights=str(folder / "w.safetensors"), mean=mean, std=std)
    by_hand = (images() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(found(cfg), logits(state(), by_hand))
    with pytest.raises(ModelError, match=r"expected 3 numbers each, one for each channel; found 1"):
        build_split(own(folder, mean=(0.5,), std=(0.2,)), IMAGE, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cut": "feature.2"}, "cut: .*none called 'feature.2'; near it: features.2"),
        ({"cut": "head"}, "leaves one side nothing to learn"),
        ({"path": "absent.py"}, r"absent.py: expected a Python file .*Correct the path"),
        ({"make": "biuld"}, "expected a function or class 'biuld' in it; it has build"),
        ({"make": "needs_more"}, "takes depth, which nobody gives: it may take num_classes and image_shape"),
        ({"make": "nothing"}, "expected an nn.Module of nothing, found NoneType"),
        ({"make": "broken"}, "broken failed: RuntimeError: out of cheese"),
        ({"make": "branching"}, "cannot be taken apart"),
        ({"make": "random"}, "gives other logits than in one piece"),
        ({"make": "in_place"}, "gives other logits than in one piece"),  # behind a head of zeros
        ({"make": "shared"}, r"calls features\.2 2 times, so that it is no place in the network\. Cut at features"),
        ({"make": "indices", "cut": "features.3"}, r"features\.3 of .* gives a tuple; expected one tensor"),
    ],
)
def test_mistakes_in_the_network_are_named(folder: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_split(own(folder, **settings), IMAGE, 10)


def test_a_file_that_cannot_be_run_is_named_and_run_again_once_it_is_another(folder: Path) -> None:
    (folder / "net.py").write_text("import torch\n1 / 0\n")
    with pytest.raises(ModelError, match=r"net.py: cannot be run: ZeroDivisionError"):
        build_split(own(folder), IMAGE, 10)
    (folder / "net.py").write_text(NET)
    build_split(own(folder), IMAGE, 10)
    assert [path.name for path in folder.iterdir()] == ["net.py"], "no compiled file is left beside it"


def test_what_lies_beside_a_file_is_that_of_its_own_folder(tmp_path: Path) -> None:
    for name, classes in (("one", 3), ("two", 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(f"import beside\n{NET}\ndef sized():\n    return Net(beside.CLASSES)\n")
        (tmp_path / name / "beside.py").write_text(f"CLASSES = {classes}\n")
        whole = make_network(own(tmp_path / name, make="sized"), IMAGE, 10)
        assert whole.head.out_features == classes
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["beside.py", "net.py"]


def test_a_file_runs_again_where_one_that_it_imports_is_another(folder: Path) -> None:
    text = (folder / "net.py").read_text()
    (folder / "net.py").write_text(f"import beside\n{text}\ndef sized():\n    return Net(beside.CLASSES)\n")
    for classes in (3, 4):
        (folder / "beside.py").write_text(f"CLASSES = {classes}\n")
        assert make_network(own(folder, make="sized"), IMAGE, 10).head.out_features == classes


@pytest.mark.filterwarnings("ignore:Validating sparse", "ignore:torch.quantize", "ignore:TypedStorage")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one | {"head.weight": torch.zeros(9, 256)}, r"head.weight has the shape 9×256; that .* 10×256"),
        (lambda one: {k: v for k, v in one.items() if k != "head.bias"}, "lacks 'head.bias' of the network"),
        (lambda one: one | {"more": torch.zeros(1)}, r"has 'more', which the network has not.*Map prefixes"),
        (lambda one: one | {"head.bias": torch.full((10,), torch.nan)}, "head.bias holds numbers that are not finite"),
        (
            lambda one: one | {"head.bias": torch.ones(10, dtype=torch.int8)},
            r"head.bias holds integers \(torch.int8\); ",
        ),
        (lambda one: one | {"head.bias": torch.ones(10, dtype=torch.complex64)}, "head.bias holds complex numbers"),
        (lambda one: one | {"head.bias": torch.ones(10, device="meta")}, "head.bias holds no numbers"),
        (
            lambda one: one | {"head.bias": torch.ones(10).to_sparse()},
            "head.bias holds a sparse tensor .*floating-point",
        ),
        (
            lambda one: one | {"head.bias": torch.quantize_per_tensor(torch.ones(10), 0.1, 0, torch.qint8)},
            "head.bias holds quantised numbers",
        ),
        (lambda one: one | {"epoch": 3}, r"expected tensors and nothing else; found others: 'epoch'"),
        (lambda one: {"state_dict": one}, "found others: 'state_dict'. Set entry: state_dict"),
        (lambda one: [one], "expected a state dict, names with tensors; found list"),
        (lambda one: nn.Linear(2, 2), r"torch.load\(weights_only=True\) reads; it says: .*never unpickled here"),
    ],
)
def test_weights_that_do_not_fit_are_named(folder: Path, change: object, message: str) -> None:
    torch.save(change(state()), folder / "w.pt")
    with pytest.raises(ModelError, match=message):
        checked(own(folder, weights=str(folder / "w.pt")))


@pytest.mark.parametrize("error", [IndexError("pop"), TypeError("no"), struct.error("s"), AssertionError()])
def test_whatever_torch_raises_at_a_damaged_file_is_an_error_of_our_own(folder, monkeypatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    (folder / "w.tar").write_bytes(b"damaged")
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(ModelError, match=r"w\.tar: expected a state dict.*it says: "):
        read_tensors(Checkpoint(path=str(folder / "w.tar")))


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_legacy_file_of_weights_is_read_or_refused(folder: Path) -> None:
    path, draw, said = folder / "w.tar", random.Random(0), []
    torch.save(state(), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for _ in range(200):
        hurt = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            hurt[draw.randrange(min(len(hurt), 1500))] = draw.randrange(256)
        path.write_bytes(hurt[: draw.randrange(1, len(hurt))] if draw.random() < 0.3 else hurt)
        try:
            read_tensors(Checkpoint(path=str(path)))
        except ModelError as error:
            said.append(str(error))
    assert len(said) > 50
    assert [text for text in said if "\n" in text] == []


def test_a_file_that_is_no_weights_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"w.pt: expected a file of weights, found none"):
        checked(own(folder, weights=str(folder / "w.pt")))
    for name in ("w.pt", "w.safetensors"):
        (folder / name).write_bytes(b"no weights")
        with pytest.raises(ModelError, match=name):
            checked(own(folder, weights=str(folder / name)))
    for name in ("w.pt", "w.safetensors"):
        (folder / name).write_bytes(b"")
        with pytest.raises(ModelError, match=f"{name}: expected a file of weights, found an empty file"):
            checked(own(folder, weights=str(folder / name)))
    torch.save(nn.Linear(2, 2), folder / "w.pt")
    with pytest.raises(ModelError, match=r"it says: Unsupported global: .*Linear was not an allowed") as raised:
        checked(own(folder, weights=str(folder / "w.pt")))
    assert "likely succeed" not in str(raised.value)
    save_file(state(), folder / "w.safetensors")
    with pytest.raises(ModelError, match=r"entry: 'ema': a safetensors file holds tensors alone.*Leave entry out"):
        checked(own(folder, weights=Checkpoint(path=str(folder / "w.safetensors"), entry="ema")))
    wrong = Checkpoint(path=str(folder / "w.safetensors"), keys={"module.": ""})
    with pytest.raises(ModelError, match=r"no name of the file begins with 'module.'; it has 'features.0.bias'"):
        checked(own(folder, weights=wrong))


def test_classes_that_are_not_the_datas_are_named_with_both_numbers(folder: Path) -> None:
    checked(own(folder, make="functional"))
    with pytest.raises(ModelError, match=r"gives 10 numbers an image; expected 7, one for each class"):
        checked(own(folder, make="functional"), classes=7)
    with pytest.raises(ModelError, match=r"does not take images of 3×64×64"):
        build_split(own(folder), (3, 64, 64), 10)


@pytest.mark.parametrize("make", ["functional", "auxiliary"])
def test_a_forward_that_asks_whether_it_trains_is_attacked_and_not_trained(folder: Path, make: str) -> None:
    with pytest.raises(ModelError, match=r"asks for self\.training .*training: none"):
        checked(own(folder, make=make), trained=True)
    encoder, classifier = make_split(own(folder, make=make), IMAGE, 10)
    classifier.eval()(encoder.eval()(images()))
    with pytest.raises(ModelError, match=r"asks for self\.training"):
        encoder.train()(images())


def test_an_attack_that_trains_such_a_network_is_refused_before_it(folder: Path) -> None:
    run = Run(
        dataset=SyntheticDataset(), model=own(folder, make="functional"), training=Training(epochs=0), noise_std=0.0
    )
    check_model(run, [Decoder()], 10)
    with pytest.raises(ModelError, match=r"shadow_model trains an encoder .*self\.training.* Leave shadow_model out"):
        check_model(run, [Decoder(), ShadowModel()], 10)


def test_code_that_brings_its_weights_is_refused_where_seeds_would_count_as_networks(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"same weights at every call.*weights: FILE"):
        checked(own(folder, make="brought"))
    checked(own(folder, make="brought"), trained=True)
    save_file(state(), folder / "w.safetensors")
    checked(own(folder, make="brought", weights=str(folder / "w.safetensors")))


def test_a_random_buffer_that_no_file_keeps_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"buffer scale is drawn at random and not kept"):
        checked(own(folder, make="unkept"))


@pytest.mark.parametrize("make", ["hooked", "by_channel", "leaky"])
def test_a_layer_that_draws_from_the_global_generator_is_attacked_and_not_trained(folder: Path, make: str) -> None:
    with pytest.raises(ModelError, match=r"draws from torch's global generator in training.*training: none"):
        checked(own(folder, make=make), trained=True)
    checked(own(folder, make=make))
    encoder, classifier = make_split(own(folder, make=make), IMAGE, 10)
    before = torch.default_generator.get_state()
    classifier.eval()(encoder.eval()(images()))
    assert torch.equal(torch.default_generator.get_state(), before)
    with pytest.raises(ModelError, match=r"global generator"):
        encoder.train()(images())


def test_plain_dropout_gets_a_generator_of_its_own(folder: Path) -> None:
    checked(own(folder, make="plain_dropout", cut="features"), trained=True)
    encoder, _ = make_split(own(folder, make="plain_dropout", cut="features"), IMAGE, 10)
    with pytest.raises(RuntimeError, match="expected a generator for dropout"):
        encoder.train()(images())
    found = []
    for _ in range(2):
        seed_dropout(encoder, torch.Generator().manual_seed(3))
        found.append(encoder(images()))
    assert torch.equal(*found)


def test_layers_of_the_users_own_stay_what_they_are(folder: Path) -> None:
    with pytest.raises(ModelError, match="its forward draws at random"):
        build_split(own(folder, make="always"), IMAGE, 10)
    torch.save(state() | {"head.bias": torch.zeros(10)}, folder / "w.pt")
    plain, hooked = (found(own(folder, make=make, weights=str(folder / "w.pt"))) for make in ("pooled", "hooked"))
    torch.testing.assert_close(hooked, 6 * plain, rtol=1e-5, atol=1e-4)  # a pooling times 3, and a hook times 2


@pytest.mark.parametrize("make", ["counting", "shaped"])
def test_how_many_images_there_are_may_be_asked_before_the_cut_and_used_after_it(folder: Path, make: str) -> None:
    cfg = OwnModel(path=str(folder / "net.py"), make=make, cut="features.3")
    encoder, classifier = make_split(cfg, (3, 32, 32), 10, torch.Generator().manual_seed(0))
    assert classifier.eval()(encoder.eval()(torch.rand(5, 3, 32, 32))).shape == (5, 10)
    checked(cfg, trained=True)


def test_parameters_that_a_layers_own_code_uses_are_learned(folder: Path) -> None:
    cfg = OwnModel(path=str(folder / "net.py"), make="standard", cut="features.0")
    encoder, _ = make_split(cfg, (3, 32, 32), 10, torch.Generator().manual_seed(0))
    assert sum(one.numel() for one in encoder.parameters()) == 3 * 4 * 9 + 4


def test_lazy_layers_take_their_sizes_from_the_images(folder: Path) -> None:
    cfg = OwnModel(path=str(folder / "net.py"), make="lazy", cut="features.3")
    checked(cfg, trained=True)
    encoder, classifier = make_split(cfg, (3, 32, 32), 10, torch.Generator().manual_seed(0))
    assert classifier.eval()(encoder.eval()(torch.rand(2, 3, 32, 32))).shape == (2, 10)


@pytest.mark.parametrize("make", ["no_statistics", "less"])
def test_a_network_whose_answer_depends_on_the_batch_is_refused(folder: Path, make: str) -> None:
    """Attacks and stored activations have other batches than whoever uses it."""
    cfg = OwnModel(path=str(folder / "net.py"), make=make, cut="features.3")
    with pytest.raises(ModelError, match="gives other numbers for an image alone than beside another one"):
        checked(cfg, trained=True)
