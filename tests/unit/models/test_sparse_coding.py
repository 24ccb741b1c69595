"""The sparse code: its formula, its place in the encoder, and how it starts."""

import pytest
import torch
from torch import nn

from cem.config import Dropout, Run, SparseCoding, SyntheticDataset, Vgg11
from cem.models import make_split, parameter_count, smashed_shape
from cem.models.init import initialise
from cem.models.sparse_coding import SparseCode

MODEL, IMAGE = Vgg11(width=0.1), (3, 32, 32)


def test_it_is_its_formula() -> None:
    code = SparseCode(SparseCoding(threshold=0.25, expansion=2), 2)
    w = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0], [0.25, 0.0]])
    code.dictionary.data = w.view(4, 2, 1, 1)
    z = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    for row, column in ((0, 0), (3, 4)):
        point = z[:, :, row, column]
        coefficients = point @ w.T
        shrunk = coefficients.sign() * (coefficients.abs() - 0.25).clamp_min(0)
        assert torch.allclose(code(z)[:, :, row, column], shrunk @ w, atol=1e-6)
    assert bool((code(torch.full((1, 2, 1, 1), 0.1)) == 0).all()), "what is small is left out"


@pytest.mark.parametrize("expansion", [1, 3])
def test_it_starts_next_to_where_z_is(expansion) -> None:
    code = SparseCode(SparseCoding(threshold=1e-6, expansion=expansion), 8)
    initialise(code, torch.Generator().manual_seed(1), client=True)
    z = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(code(z), z, atol=1e-4)


@pytest.mark.parametrize("bottleneck", [None, "noRELU_C8S1"])
def test_it_stands_between_bottleneck_and_activation(bottleneck) -> None:
    cfg = MODEL.model_copy(update={"bottleneck": bottleneck})
    encoder, classifier = make_split(cfg, IMAGE, 4, defenses=(Dropout(), SparseCoding(expansion=2)))
    plain, other = make_split(cfg, IMAGE, 4)
    assert isinstance(encoder[-2], SparseCode)
    assert isinstance(encoder[-1], nn.Sigmoid)
    assert not any(isinstance(part, SparseCode) for part in [*plain, *classifier])
    channels = smashed_shape(plain, IMAGE)[0]
    assert smashed_shape(encoder, IMAGE) == smashed_shape(plain, IMAGE)
    assert parameter_count(encoder) == parameter_count(plain) + 2 * channels**2
    assert parameter_count(classifier) == parameter_count(other)


def test_the_undefended_reference_has_none() -> None:
    run = Run(dataset=SyntheticDataset(), model=MODEL, defenses=(SparseCoding(),))
    reference = run.undefended(0)
    encoder, _ = make_split(reference.model, IMAGE, 4, defenses=reference.defenses)
    assert not any(isinstance(part, SparseCode) for part in encoder)
