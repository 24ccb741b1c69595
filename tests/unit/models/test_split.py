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
