import pytest
import torch

from cem.models.decoder import DecoderError
from cem.models.velocity import make_velocity


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("channels", "side"), [(1, 1), (3, 3), (1, 5), (3, 7), (2, 8), (3, 12)])
@pytest.mark.parametrize("doublings", [0, 1, 3])
def test_any_z_and_any_image_of_a_side_that_doubling_reaches(channels, side, doublings):
    image = (channels, side * 2**doublings, side * 2**doublings)
    velocity, condition = make_velocity("unet_C4", image, (2, side, side), generator())
    x = torch.randn(3, *image, generator=generator(1))
    features = condition(torch.randn(3, 2, side, side, generator=generator(2)))
    found = velocity(x, torch.tensor([0.0, 0.4, 1.0]), features)
    assert found.shape == x.shape
    assert found.isfinite().all()
    assert not torch.equal(found, velocity(x, torch.tensor([0.0, 0.4, 1.0]), 2 * features))


@pytest.mark.parametrize("side", [1, 8, 9, 28, 33, 64])
def test_without_z_any_side(side):
    velocity, condition = make_velocity("unet_C4", (1, side, side), None, generator())
    x = torch.randn(2, 1, side, side, generator=generator(1))
    assert condition is None
    assert velocity(x, torch.tensor([0.1, 0.9])).shape == x.shape


@pytest.mark.parametrize("time", [0.0, 0.3, 0.5, 1.0])
def test_of_white_images_it_is_exact_where_the_network_adds_nothing(time):
    """E[x − ε | x_t] = (2t − 1) / (t² + (1 − t)²) · x_t for independent pixels of variance 1."""
    velocity, _ = make_velocity("unet_C4", (1, 8, 8), None, generator())
    torch.nn.init.zeros_(velocity.leave.weight)
    torch.nn.init.zeros_(velocity.leave.bias)
    x, noise = torch.randn(2, 2000, 1, 8, 8, generator=generator(1)).unbind()
    mixed = (1 - time) * noise + time * x
    found = velocity(mixed, torch.full((2000,), time))
    slope = float(((x - noise) * mixed).mean() / mixed.square().mean())
    torch.testing.assert_close(found, slope * mixed, atol=0.05, rtol=0)


def test_the_time_matters_and_images_of_a_batch_do_not_mix():
    velocity, _ = make_velocity("unet_C4", (1, 8, 8), None, generator())
    x = torch.randn(2, 1, 8, 8, generator=generator(1))
    one, other = velocity(x, torch.tensor([0.2, 0.2])), velocity(x, torch.tensor([0.2, 0.7]))
    torch.testing.assert_close(one[0], other[0])
    assert (one[1] - other[1]).abs().max() > 1e-3


def test_seed_decides_the_weights_and_the_global_generator_is_untouched():
    def weights(seed):
        made = make_velocity("unet_C4", (1, 16, 16), (2, 4, 4), generator(seed))
        return torch.cat([tensor.reshape(-1).float() for part in made for tensor in part.state_dict().values()])

    before = torch.random.get_rng_state()
    first = weights(1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))
    assert torch.isfinite(first).all()  # no memory is left as it was found


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="expected unet_C<channels>"):
        make_velocity("res_normN1C4", (1, 16, 16), (2, 4, 4), generator())
    with pytest.raises(DecoderError, match="enlarges z until it is an image"):
        make_velocity("unet_C4", (1, 32, 32), (2, 40, 40), generator())


@pytest.mark.parametrize(("z", "side"), [(12, 28), (10, 32), (13, 27)])
def test_z_of_any_smaller_side_is_told(z, side):
    velocity, condition = make_velocity("unet_C4", (1, side, side), (2, z, z), generator())
    features = condition(torch.rand(3, 2, z, z))
    assert velocity(torch.rand(3, 1, side, side), torch.rand(3), features).shape == (3, 1, side, side)
