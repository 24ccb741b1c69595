"""The discriminator of z: any shape of z to one number each, that hangs on place and scale and on no other z."""

import pytest
import torch

from cem.models.discriminator import make_discriminator


def made(shape, seed=0):
    return make_discriminator(shape, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 8, 8), (64, 1, 1), (1, 32, 32), (3, 5, 7), (4, 2, 2)])
def test_every_shape_of_z_gets_one_number_each(shape):
    z = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    before = torch.random.get_rng_state()
    verdict = made(shape)(z)
    assert verdict.shape == (3,)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(verdict, made(shape)(z))
    assert not torch.equal(verdict, made(shape, seed=1)(z))
    torch.testing.assert_close(verdict[:1], made(shape)(z[:1]))


def test_it_sees_where_and_how_strong_a_value_is():
    z = torch.zeros(3, 2, 8, 8)
    z[0, 0, 1, 1] = z[1, 0, 6, 6] = 1.0
    z[2, 0, 1, 1] = 2.0
    verdict = made((2, 8, 8))(z)
    assert len(set(verdict.tolist())) == 3
