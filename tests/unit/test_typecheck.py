"""While the tests run, the types and shapes that the program states are checked."""

import pytest
import torch
import typecheck
from jaxtyping import Float, TypeCheckError, jaxtyped
from torch import Tensor

from cem.metrics.identification import identified


def test_a_function_of_the_program_refuses_a_shape_that_it_does_not_state() -> None:
    images, own = torch.zeros(2, 3, 8, 8), torch.arange(2)
    with pytest.raises(TypeCheckError, match="pool"):
        identified(images, images.byte(), own, own)


def inner():
    @jaxtyped(typechecker=typecheck.check_types)
    def first(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        return a[0] if len(a) < 5 else b

    return first


def test_a_function_that_is_defined_again_is_checked_again() -> None:
    for _ in range(3):
        with pytest.raises(TypeCheckError, match="parameters"):
            inner()(torch.zeros(2), torch.zeros(3))
        with pytest.raises(TypeCheckError, match="return value"):
            inner()(torch.zeros(5), torch.zeros(5))
        assert inner()(torch.zeros(2), torch.zeros(2)) == 0


def test_each_test_begins_to_count_from_nothing() -> None:
    first = inner()
    for _ in range(2):
        for _ in range(typecheck.CALLS):
            first(torch.zeros(2), torch.zeros(2))
        first(torch.zeros(2), torch.zeros(3))  # one call too many to be looked at
        typecheck.begin_test()
        with pytest.raises(TypeCheckError):
            first(torch.zeros(2), torch.zeros(3))
        typecheck.begin_test()
