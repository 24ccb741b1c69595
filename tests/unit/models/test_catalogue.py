"""What `cem models` says of every cut."""

import pytest

from cem.config import ModelSettings, Vgg11, VitSmall
from cem.models.catalogue import catalogue, count_macs
from cem.models.split import ModelError, build_split

IMAGE = (3, 32, 32)
VGG_4 = (
    32**2 * 27 * 64 + 16**2 * 9 * 64 * 128 + 8**2 * 9 * 128 * 8
)  # two convolutions, each after a pooling, and a third
NUMBERS, TOKENS = 24, 64  # of the transformer at a sixteenth of its width
VIT_2 = TOKENS * (3 * 16 * NUMBERS + 12 * NUMBERS**2) + 2 * TOKENS**2 * NUMBERS  # patches; weights; scores and sums


@pytest.mark.parametrize(
    ("cfg", "macs"),
    [(Vgg11(cut_layer=4), VGG_4), (VitSmall(width=1 / 16, cut_layer=2, bottleneck=None), VIT_2)],
    ids=["vgg11", "vit_small"],
)
def test_macs_are_those_counted_by_hand(cfg: ModelSettings, macs: int) -> None:
    assert count_macs(build_split(cfg, IMAGE, 10)[0], IMAGE) == macs


def test_every_cut_has_its_row_and_one_that_cannot_be_says_why() -> None:
    rows = catalogue("vgg11", {"bottleneck": "noRELU_C8S2"}, IMAGE)
    assert [row.cut for row in rows] == list(range(1, 14))
    assert rows[3].z == (8, 4, 4)
    assert rows[3].client_parameters == 85_256
    assert rows[12].z is None
    assert "stride 2 must divide the 1×1" in rows[12].refused
    assert all(len(row.words()) == 5 for row in rows)


def test_without_a_name_all_that_are_complete_are_shown() -> None:
    found = {row.arch for row in catalogue("", {"width": 0.125}, IMAGE)}
    assert {"vgg11", "vgg16", "resnet20", "mobilenet_v2", "vit_small"} <= found
    assert "torchvision" not in found


def test_modules_of_a_classifier_are_its_cuts() -> None:
    rows = {row.cut: row for row in catalogue("torchvision:resnet18", {"bottleneck": None}, (3, 64, 64))}
    assert rows["layer1"].z == (64, 16, 16)
    assert rows["layer1"].client_parameters == 9_408 + 128 + 4 * 36_864 + 4 * 128
    assert "layer1.0.conv1" not in rows
    assert rows["avgpool"].z == (512, 1, 1)


@pytest.mark.parametrize(
    ("arch", "settings", "message"),
    [
        ("vgg12", {}, "found 'vgg12'. Did you mean vgg"),
        ("vgg11", {"width": 0}, "width"),
        ("torchvision:resnet19", {}, "none called 'resnet19'; near it: resnet1"),
        ("torchvision:resnet18", {"width": 0.5}, "width"),
    ],
)
def test_what_does_not_exist_is_refused(arch: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        catalogue(arch, settings, IMAGE)
