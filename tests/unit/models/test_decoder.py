import pytest
import torch

from cem.config.decoder import grid_of
from cem.models.decoder import DecoderError, Resample, make_decoder, to_grid


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_count():
    assert count(make_decoder("res_normN8C64", (8, 8, 8), (3, 32, 32))) == 711_539


def test_a_block_more_adds_two_convolutions_and_two_normalisations():
    shapes = (8, 8, 8), (3, 32, 32)
    more = count(make_decoder("res_normN3C16", *shapes)) - count(make_decoder("res_normN2C16", *shapes))
    assert more == 2 * (16 * 16 * 9 + 16) + 2 * 2 * 16


@pytest.mark.parametrize(("side", "image_side"), [(16, 16), (8, 16), (4, 32), (12, 48), (12, 28), (11, 32), (13, 27)])
@pytest.mark.parametrize("net", ["res_normN1C4", "unet_C4"])
def test_output_is_an_image_in_the_unit_interval(net, side, image_side):
    decoder = make_decoder(net, (2, side, side), (3, image_side, image_side))
    z = 100 * torch.randn(2, 2, side, side, generator=torch.Generator().manual_seed(0))
    image = decoder(z)
    assert image.shape == (2, 3, image_side, image_side)
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize(
    ("z", "side", "grid"),
    [(8, 32, (8, 2)), (12, 48, (12, 2)), (1, 32, (1, 5)), (12, 28, (14, 1)), (10, 32, (16, 1)), (13, 27, (27, 0))],
)
def test_z_is_brought_to_the_next_side_that_doubling_leads_from(z, side, grid):
    assert grid_of(z, side) == grid
    fit, doublings = to_grid((2, z, z), (1, side, side))
    assert doublings == grid[1]
    assert isinstance(fit, torch.nn.Identity) == (grid[0] == z)


@pytest.mark.parametrize(("before", "after"), [((5, 7), (9, 14)), ((12, 12), (14, 14)), ((4, 4), (4, 4))])
def test_resampling_is_that_of_torch_and_loses_nothing(before, after):
    x = torch.rand(2, 3, *before, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.nn.functional.interpolate(x, after, mode="bilinear", align_corners=False)
    torch.testing.assert_close(Resample(after)(x), expected)
    each = torch.eye(before[0] * before[1]).view(-1, 1, *before)
    assert torch.linalg.matrix_rank(Resample(after)(each).flatten(1)) == before[0] * before[1]


@pytest.mark.parametrize("z", [(2, 64, 64), (2, 8, 16)])
def test_a_z_that_is_larger_or_of_another_form_than_the_image_is_refused(z):
    with pytest.raises(DecoderError, match=r"found z \(2, .*image \(3, 32, 32\)"):
        make_decoder("res_normN1C4", z, (3, 32, 32))


def test_a_name_of_another_form_is_refused():
    with pytest.raises(ValueError, match="res_normN<blocks>C<channels>"):
        make_decoder("resnormN1C4", (2, 8, 8), (3, 32, 32))


def test_seed_decides_the_weights_and_the_global_generator_is_untouched():
    def weights(seed):
        made = make_decoder("res_normN1C4", (2, 8, 8), (1, 16, 16), torch.Generator().manual_seed(seed))
        return torch.cat([tensor.reshape(-1).float() for tensor in made.state_dict().values()])

    before = torch.random.get_rng_state()
    first = weights(1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))
    assert torch.isfinite(first).all()  # no memory is left as it was found


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7, 8, 12])
@pytest.mark.parametrize("doublings", [0, 2])
def test_unet_reaches_the_image_from_any_side(side, doublings):
    image_side = side * 2**doublings
    unet = make_decoder("unet_C4", (2, side, side), (3, image_side, image_side))
    image = unet(torch.randn(3, 2, side, side, generator=torch.Generator().manual_seed(0)))
    assert image.shape == (3, 3, image_side, image_side)
    assert image.min() >= 0
    assert image.max() <= 1
    image.sum().backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())
    assert len(unet.down) == {1: 0, 2: 1}.get(side, 2)


def test_unet_takes_oblong_smashed_data():
    assert make_decoder("unet_C4", (2, 3, 5), (1, 12, 20))(torch.zeros(2, 2, 3, 5)).shape == (2, 1, 12, 20)


def test_unet_looks_further_than_the_residual_decoder():
    """A value in one corner of z moves the other corner of the image, by way of the quarter resolution."""

    def reach(name):
        decoder = make_decoder(name, (2, 16, 16), (1, 16, 16)).eval()
        z = torch.zeros(1, 2, 16, 16, requires_grad=True)
        decoder(z)[0, 0, -1, -1].backward()
        return z.grad[0, :, 0, 0].abs().max().item()

    assert reach("unet_C4") > 0
    assert reach("res_normN0C4") == 0


def test_unet_learns():
    draws = torch.Generator().manual_seed(0)
    z = torch.rand(64, 2, 4, 4, generator=draws)
    images = z.mean(1, keepdim=True).repeat_interleave(2, 2).repeat_interleave(2, 3)
    unet = make_decoder("unet_C4", (2, 4, 4), (1, 8, 8))
    optimizer = torch.optim.Adam(unet.parameters(), lr=1e-2)
    for _ in range(80):
        loss = (unet(z) - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * images.var()


def test_unet_weights_are_decided_by_the_seed():
    def weights(seed):
        made = make_decoder("unet_C4", (2, 8, 8), (1, 16, 16), torch.Generator().manual_seed(seed))
        return torch.cat([tensor.reshape(-1).float() for tensor in made.state_dict().values()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert torch.isfinite(weights(1)).all()
