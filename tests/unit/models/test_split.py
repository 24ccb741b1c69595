"""The split model: published sizes, every cut, and randomness of its own."""

import pytest
import torch

from cem.config import Vgg11
from cem.models import make_split, parameter_count, seed_dropout, smashed_shape


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("bottleneck", ["C8S1", "noRELU_C8S1"])
def test_published_parameter_counts(bottleneck: str) -> None:
    encoder, classifier = make_split(Vgg11(bottleneck=bottleneck), (3, 32, 32), 10)
    assert parameter_count(encoder) == 85_256
    assert parameter_count(classifier) == 9_689_738
    assert smashed_shape(encoder, (3, 32, 32)) == (8, 8, 8)


@pytest.mark.parametrize(
    ("cut", "side", "expected"), [(3, 32, (8, 16, 16)), (4, 48, (8, 12, 12)), (4, 64, (8, 16, 16))]
)
def test_published_smashed_shapes(cut: int, side: int, expected: tuple[int, int, int]) -> None:
    encoder, _ = make_split(Vgg11(cut_layer=cut, width=0.1), (3, side, side), 10)
    assert smashed_shape(encoder, (3, side, side)) == expected


@pytest.mark.parametrize("cut", range(1, 13))
@pytest.mark.parametrize("bottleneck", [None, "C4S1", "K5C4S2", "noRELU_K1C4S2"])
def test_the_halves_fit_at_every_cut(cut: int, bottleneck: str | None) -> None:
    cfg = Vgg11(width=0.05, cut_layer=cut, bottleneck=bottleneck)
    side = 64
    if cut >= 12 and bottleneck and bottleneck.endswith("S2"):
        side = 128  # stride 2 needs an even number of positions
    encoder, classifier = make_split(cfg, (1, side, side), 7)
    with torch.no_grad():
        logits = classifier.eval()(encoder.eval()(torch.rand(2, 1, side, side, generator=generator())))
    assert logits.shape == (2, 7)


def test_sigmoid_keeps_smashed_data_inside_the_unit_interval_and_relu_in_its_upper_half() -> None:
    images = torch.rand(4, 3, 32, 32, generator=generator())
    for bottleneck, low in (("noRELU_C8S1", 0.0), ("C8S1", 0.5)):
        encoder, _ = make_split(Vgg11(width=0.1, bottleneck=bottleneck), (3, 32, 32), 10)
        with torch.no_grad():
            z = encoder(images)
        assert low <= float(z.min()) < float(z.max()) <= 1.0


def test_the_seed_decides_the_weights_and_torchs_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    one, other, third = (make_split(Vgg11(width=0.1), (3, 32, 32), 10, generator(s)) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b, c in zip(one, other, third, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
        assert not torch.equal(next(a.parameters()), next(c.parameters()))


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


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        make_split(Vgg11(), (3, 32, 48), 10)
    with pytest.raises(ValueError, match=r"stride 3 must divide the 8×8"):
        make_split(Vgg11(bottleneck="C8S3"), (3, 32, 32), 10)
