"""LPIPS with a trunk of random weights: ImageNet's are not at hand in tests, and nothing here depends on them."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate, normalize, relu
from torchvision.models.vgg import cfgs, make_layers

from cem.metrics import MetricError, load_lpips
from cem.storage.files import sha256

lpips = pytest.importorskip("lpips")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory):
    """A file like torchvision's, its classifier included."""
    torch.manual_seed(0)
    state = {f"features.{name}": tensor for name, tensor in make_layers(cfgs["D"]).state_dict().items()}
    path = tmp_path_factory.mktemp("lpips") / "vgg16.pth"
    torch.save(state | {"classifier.0.bias": torch.zeros(3)}, path)
    return path


@pytest.fixture(scope="module")
def metric(trunk):
    return load_lpips(trunk, sha256(trunk))


def images(seed, n=3, channels=3, side=32):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


def by_definition(trunk, x, y):
    """Σ over VGG's last layers before each pooling of the weighted squared differences of unit features."""
    layers = make_layers(cfgs["D"])
    state = torch.load(trunk, weights_only=True)
    layers.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")})
    heads = torch.load(f"{lpips.__path__[0]}/weights/v0.1/vgg.pth", "cpu", weights_only=True)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    features, total, level = torch.cat([(x - mean) / std, (y - mean) / std]), 0, 0
    for number, layer in enumerate(layers):
        features = layer(features)
        if number in (3, 8, 15, 22, 29):
            a, b = normalize(features, dim=1).chunk(2)
            total = total + ((a - b) ** 2 * relu(heads[f"lin{level}.model.1.weight"])).sum(1).mean((1, 2))
            level += 1
    return total.detach()


def test_it_is_its_definition_with_the_published_heads(metric, trunk):
    x, y = images(0, side=64), images(1, side=64)
    torch.testing.assert_close(metric(x, y), by_definition(trunk, x, y), rtol=0, atol=1e-5)


def test_equal_images_are_at_zero_and_order_does_not_matter(metric):
    x, y = images(0), images(1)
    assert torch.equal(metric(x, x), torch.zeros(3))
    torch.testing.assert_close(metric(x, y), metric(y, x))
    near, far = metric((0.9 * x + 0.1 * y), x), metric((0.5 * x + 0.5 * y), x)
    assert (near > 0).all()
    assert (near < far).all()


def test_small_images_are_enlarged_and_grey_ones_repeated(metric):
    x, y = images(0, channels=1, side=28), images(1, channels=1, side=28)
    enlarged = [interpolate(image, size=(64, 64), mode="bilinear").expand(-1, 3, -1, -1) for image in (x, y)]
    torch.testing.assert_close(metric(x, y), metric(*enlarged))


def test_larger_images_stay_as_they_are(metric, trunk):
    x, y = images(0, n=1, side=96), images(1, n=1, side=96)
    torch.testing.assert_close(metric(x, y), by_definition(trunk, x, y), rtol=0, atol=1e-5)


def test_an_image_scores_the_same_alone_as_in_a_batch(metric):
    x, y = images(0), images(1)
    alone = torch.cat([metric(x[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(metric(x, y), alone, atol=1e-6, rtol=1e-5)


def test_global_generator_is_untouched(trunk):
    before = torch.random.get_rng_state()
    load_lpips(trunk, sha256(trunk))
    assert torch.equal(before, torch.random.get_rng_state())


def test_safetensors_are_read(metric, trunk, tmp_path):
    path = tmp_path / "vgg16.safetensors"
    save_file(torch.load(trunk, weights_only=True), path)
    x, y = images(0, n=1), images(1, n=1)
    assert torch.equal(load_lpips(path, sha256(path))(x, y), metric(x, y))


def test_another_hash_is_refused_before_the_file_is_read(tmp_path):
    path = tmp_path / "vgg16.pth"
    path.write_bytes(b"not what it should be")
    with pytest.raises(MetricError, match=f"expected SHA-256 397923af.*found {sha256(path)}"):
        load_lpips(path)


def test_a_file_of_other_weights_is_refused(tmp_path):
    path = tmp_path / "vgg16.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3), "features.34.bias": torch.zeros(512)}, path)
    with pytest.raises(MetricError, match=r"(?s)weights of VGG-16 in torchvision's names.*slice1.0.bias"):
        load_lpips(path, sha256(path))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(MetricError, match=r"vgg16\.pth: no such file.*not downloaded"):
        load_lpips(tmp_path / "vgg16.pth")


def test_an_absent_package_is_named(trunk, monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MetricError, match="pip install lpips"):
        load_lpips(trunk, sha256(trunk))


def test_what_cannot_be_compared_is_refused(metric):
    with pytest.raises(MetricError, match="found 2 channels"):
        metric(images(0, channels=2), images(1, channels=2))
    with pytest.raises(MetricError, match=r"images in \[0, 1\]"):
        metric(images(0), images(1) * 3)
