"""The split model: published sizes, every cut, and randomness of its own."""

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from cem.config import MobileNetV2, ModelSettings, ResNet20, ResNet32, Vgg11, Vgg13, Vgg16, VitSmall
from cem.models import make_split, parameter_count, seed_dropout, smashed_shape, smashed_shape_of
from cem.models.resnet import BasicBlock
from cem.models.split import build_split


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("bottleneck", ["C8S1", "noRELU_C8S1"])
def test_published_parameter_counts(bottleneck: str) -> None:
    encoder, classifier = make_split(Vgg11(bottleneck=bottleneck), (3, 32, 32), 10)
    assert parameter_count(encoder) == 85_256
    assert parameter_count(classifier) == 9_689_738
    assert smashed_shape(encoder, (3, 32, 32)) == (8, 8, 8)


@pytest.mark.parametrize(
    ("cfg", "side", "count", "shape"),
    [
        (Vgg11(cut_layer=3, bottleneck="C8S1"), 32, 85_256, (8, 16, 16)),
        (Vgg11(cut_layer=4, bottleneck="C8S1"), 48, 85_256, (8, 12, 12)),
        (Vgg11(cut_layer=4, bottleneck="C8S1"), 64, 85_256, (8, 16, 16)),
        (Vgg11(cut_layer=5, bottleneck="C8S1"), 32, 390_152, (8, 8, 8)),
        (ResNet20(cut_layer=4, bottleneck="C8S1"), 64, 54_616, (8, 32, 32)),
        (ResNet20(cut_layer=5, bottleneck="C8S1"), 64, 112_472, (8, 16, 16)),
    ],
    ids=str,
)
def test_published_clients(cfg: ModelSettings, side: int, count: int, shape: tuple[int, int, int]) -> None:
    encoder, _ = build_split(cfg, (3, side, side), 10)
    assert parameter_count(encoder) == count
    assert smashed_shape_of(cfg, (3, side, side)) == shape


@pytest.mark.parametrize(
    ("cfg", "convolutions"), [(Vgg11(), 8), (Vgg13(), 10), (Vgg16(), 13), (ResNet20(), 19), (ResNet32(), 31)], ids=str
)
def test_depths_are_those_of_the_names(cfg: ModelSettings, convolutions: int) -> None:
    """Three linear layers end a VGG, one a ResNet."""
    encoder, classifier = build_split(cfg.model_copy(update={"bottleneck": None}), (3, 32, 32), 10)
    found = [part for half in (encoder, classifier) for part in half.modules() if isinstance(part, nn.Conv2d)]
    assert len(found) == convolutions


def test_mobilenet_has_the_parameters_of_torchvisions() -> None:
    halves = build_split(MobileNetV2(bottleneck=None), (3, 32, 32), 10)
    with torch.device("meta"):
        assert sum(map(parameter_count, halves)) == parameter_count(mobilenet_v2(num_classes=10))


def test_a_block_of_the_transformer_has_the_parameters_counted_by_hand() -> None:
    d = 6 * 64
    one, two = (parameter_count(build_split(VitSmall(cut_layer=cut), (3, 32, 32), 10)[0]) for cut in (1, 2))
    assert two - one == 12 * d**2 + 13 * d


def test_tokens_lie_where_their_patches_are() -> None:
    encoder, _ = make_split(VitSmall(width=0.125, cut_layer=1, bottleneck=None, activation="none"), (1, 32, 32), 10)
    images = torch.rand(2, 1, 32, 32, generator=generator())
    images[1] = images[0]
    images[1, :, 8:12, 20:24] = 0  # the third row of patches, the sixth column
    with torch.no_grad():
        z = encoder.eval()(images)
    assert (z[0] != z[1]).any(0).nonzero().tolist() == [[2, 5]]
    with pytest.raises(ValueError, match="a multiple of 4, found 50"):
        make_split(VitSmall(), (1, 50, 50), 10)


def test_a_shortcut_drops_positions_and_adds_channels_of_zeros() -> None:
    block = BasicBlock(2, 5, stride=2).eval()
    for parameter in block.body[-1].parameters():
        nn.init.zeros_(parameter)  # nothing but the shortcut is left
    x = torch.rand(1, 2, 5, 5, generator=generator())
    out = block(x)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert not out[:, 2:].any()


def test_a_batch_normalised_end_leaves_the_encoder_no_scale_of_its_own() -> None:
    encoder, _ = make_split(Vgg11(width=0.1, activation="batch_norm"), (3, 32, 32), 10)
    with torch.no_grad():
        encoder[-2].weight *= 100
        z = encoder.train()(torch.rand(16, 3, 32, 32, generator=generator()))
    assert not list(encoder[-1].parameters())
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.var((0, 2, 3), correction=0), torch.ones(8), atol=1e-3, rtol=0)


def test_sigmoid_keeps_smashed_data_inside_the_unit_interval_and_relu_in_its_upper_half() -> None:
    images = torch.rand(4, 3, 32, 32, generator=generator())
    for bottleneck, low in (("noRELU_C8S1", 0.0), ("C8S1", 0.5)):
        encoder, _ = make_split(Vgg11(width=0.1, bottleneck=bottleneck), (3, 32, 32), 10)
        with torch.no_grad():
            z = encoder(images)
        assert low <= float(z.min()) < float(z.max()) <= 1.0


def test_dropout_draws_from_its_own_generator_and_is_off_at_inference() -> None:
    _, classifier = make_split(Vgg11(width=0.1), (3, 32, 32), 10)
    z = torch.rand(4, 8, 8, 8, generator=generator())
    with pytest.raises(RuntimeError, match="seed_dropout"):
        classifier.train()(z)
    draws = generator(5)
    seed_dropout(classifier, draws)
    state = draws.get_state()
    one = classifier(z)
    draws.set_state(state)
    assert torch.equal(classifier(z), one)
    assert not torch.equal(classifier(z), one)
    assert torch.equal(classifier.eval()(z), classifier(z))
