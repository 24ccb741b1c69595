"""Pruning of an encoder: which channels go, what stays, and the shapes that settings alone give."""

import pytest
import torch
from torch import nn

from cem.config import Pruning, ResNet20, SparseCoding, Vgg11
from cem.models import make_split, parameter_count, smashed_shape
from cem.models.pruning import prune
from cem.models.residual import BasicBlock
from cem.models.sparse_coding import SparseCode

IMAGE = (3, 32, 32)


def encoder_of(**settings) -> nn.Sequential:
    encoder, _ = make_split(Vgg11(**settings), IMAGE, 10, torch.Generator().manual_seed(1))
    return encoder


def test_the_client_of_patrol_has_the_published_size_and_is_pruned_below_that_of_the_plain_one() -> None:
    plain, deep, pruned = (
        parameter_count(encoder_of(**settings))
        for settings in ({}, {"extra_conv": 16}, {"extra_conv": 16, "client_pruned": 0.05})
    )
    assert (plain, deep) == (85_256, 93_224)
    # 15, 60 and 121 channels of 16, 64 and 128
    assert pruned == (3 * 9 + 3) * 15 + (15 * 9 + 3) * 60 + (60 * 9 + 3) * 121 + (121 * 9 + 1) * 8 == 83_153


def test_the_server_and_z_stay_as_they_are() -> None:
    for bottleneck in ("noRELU_C8S1", None):
        halves = [
            make_split(Vgg11(extra_conv=16, bottleneck=bottleneck, client_pruned=part), IMAGE, 10) for part in (0, 0.3)
        ]
        (whole, server), (pruned, other) = halves
        assert smashed_shape(pruned, IMAGE) == smashed_shape(whole, IMAGE)
        assert parameter_count(other) == parameter_count(server)
        assert parameter_count(pruned) < parameter_count(whole)


def test_channels_with_the_smallest_filters_go_and_what_they_did_not_do_is_not_missed() -> None:
    encoder, images = encoder_of(width=0.25, extra_conv=16), torch.rand(5, *IMAGE)
    dead = {0: [1], 3: [0, 7], 7: [3, 4, 30]}  # of 4, 16 and 32 channels
    with torch.no_grad():
        for index, rows in dead.items():
            encoder[index].weight[rows] *= 0.01
            encoder[index + 1].weight[rows] = 0.0  # with no bias, so that they send nothing on
    encoder.eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with torch.no_grad():
        expected = encoder(images)
        prune(encoder, 0.07)
        torch.testing.assert_close(encoder(images), expected)
    for index, rows in dead.items():
        kept = [row for row in range(len(before[f"{index}.bias"])) if row not in rows]
        assert torch.equal(encoder[index + 1].running_var, before[f"{index + 1}.running_var"][kept])
        assert encoder[index].out_channels == encoder[index + 1].num_features == len(kept)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.99])
def test_settings_give_the_shapes_of_what_was_pruned(part) -> None:
    encoder = encoder_of(width=0.25, extra_conv=16)
    prune(encoder, part)
    encoder_of(width=0.25, extra_conv=16, client_pruned=part).load_state_dict(encoder.state_dict())
    assert encoder[0].out_channels == {0.05: 3, 0.5: 2, 0.9: 1, 0.99: 1}[part]


def resnet(**settings) -> nn.Sequential:
    encoder, _ = make_split(ResNet20(width=0.25, **settings), IMAGE, 10, torch.Generator().manual_seed(1))
    return encoder


def test_a_residual_block_loses_channels_between_its_convolutions_alone() -> None:
    encoder, images = resnet(cut_layer=4, extra_conv=16), torch.rand(5, *IMAGE)
    blocks = [part for part in encoder if isinstance(part, BasicBlock)]
    with torch.no_grad():  # of 4 channels between, and of the first convolution's 4, one each sends nothing on
        for parts in (encoder, *(block.body for block in blocks)):
            parts[0].weight[2] *= 0.01
            parts[1].weight[2] = 0.0
    encoder.eval()
    with torch.no_grad():
        expected = encoder(images)
        prune(encoder, 0.1)
        torch.testing.assert_close(encoder(images), expected)
    assert [encoder[0].out_channels, encoder[3].in_channels, encoder[3].out_channels] == [3, 3, 4]
    assert [[block.body[0].out_channels, block.body[3].in_channels] for block in blocks] == [[7, 7]] * 3
    assert [block.body[3].out_channels for block in blocks] == [8, 8, 8]
    resnet(cut_layer=4, extra_conv=16, client_pruned=0.1).load_state_dict(encoder.state_dict())


def test_a_norm_without_weights_at_the_end_is_left() -> None:
    encoder, images = resnet(cut_layer=4, bottleneck=None, activation="batch_norm"), torch.rand(5, *IMAGE)
    before = encoder.eval()(images).shape
    prune(encoder, 0.5)
    assert encoder(images).shape == before


@pytest.mark.parametrize(
    ("model", "convolutions"),
    [
        (ResNet20(cut_layer=1, bottleneck=None), 0),
        (ResNet20(cut_layer=1), 1),
        (ResNet20(cut_layer=2, bottleneck=None), 1),
        (ResNet20(cut_layer=4, extra_conv=16), 4),
        (ResNet20(cut_layer=11), 9),
        (Vgg11(cut_layer=4), 2),
    ],
)
def test_settings_know_how_many_convolutions_lose_channels(model, convolutions) -> None:
    encoder, _ = make_split(model, IMAGE, 10)
    losing = sum(former.dim() == 4 and former.shape[0] != now.shape[0] for former, now, _ in prune(encoder, 0.5))
    assert model.prunable_convolutions == convolutions == losing


def test_an_encoder_whose_parts_nobody_knows_is_refused() -> None:
    with pytest.raises(TypeError, match="one after the other, found Linear"):
        prune(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(2, 2), nn.Conv2d(4, 4, 1)), 0.1)


def test_a_sparse_code_behind_the_last_convolution_stays() -> None:
    """As the settings give it, and as pruning leaves it."""
    sca = (SparseCoding(),)
    whole, pruned = (
        make_split(Vgg11(client_pruned=part), IMAGE, 10, torch.Generator().manual_seed(1), sca)[0] for part in (0, 0.3)
    )
    (code,) = [part for part in whole if isinstance(part, SparseCode)]
    replaced = prune(whole, 0.3)
    assert not any(former is code.dictionary for former, *_ in replaced)
    assert smashed_shape(whole, IMAGE) == smashed_shape(pruned, IMAGE)
    assert [one.shape for one in whole.parameters()] == [one.shape for one in pruned.parameters()]


def test_pruning_of_a_client_with_one_convolution_is_refused() -> None:
    with pytest.raises(ValueError, match="would take nothing"):
        Pruning().check_model(Vgg11(cut_layer=2, bottleneck=None), 32)
    Pruning().check_model(Vgg11(cut_layer=2, bottleneck=None, extra_conv=4), 32)


def test_the_epoch_of_pruning_is_not_moved_by_rounding() -> None:
    assert [Pruning(at=at).prunes_at(100) for at in (0.07, 0.55, 0.501)] == [7, 55, 51]
