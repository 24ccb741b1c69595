"""Data read in chunks give the fit that data in memory give."""

import pytest
import torch

from cem.config import MixtureFit, Run, SyntheticDataset, Vgg11
from cem.mixture import fit_mixture, fit_mixture_stream, load_mixture
from cem.mixture.kmeans import seed_means
from cem.mixture.samples import Samples
from cem.storage.hdf5 import Reader, write_file
from cem.training import leakage, measure_mixture


def chunked(z: torch.Tensor, labels: torch.Tensor, size: int):
    return lambda: zip(z.split(size), labels.split(size), strict=True)


@pytest.mark.parametrize("size", [1, 7, 100, 599, 2000])
def test_seeds_do_not_depend_on_the_chunks(mixture, draw, generator, size) -> None:
    z, labels = draw(mixture(components=4, apart=3), 600, 1)
    whole = seed_means(Samples(chunked(z, labels, 600), in_memory=True), 4, generator(2))
    parts = seed_means(Samples(chunked(z, labels, size)), 4, generator(2))
    torch.testing.assert_close(parts, whole)
    # k-means++ chooses samples of its own class.
    centres = whole[0] + z[labels == 0].mean(0)
    assert (torch.cdist(centres, z[labels == 0]).min(1).values < 1e-3).all()


@pytest.mark.parametrize("size", [97, 1000])
@pytest.mark.parametrize("fit", ["kmeans", "em"])
@pytest.mark.parametrize(("covariance", "d"), [("spherical", 6), ("diag", 6), ("diag", 80), ("pca", 40)])
def test_streaming_gives_the_fit_in_memory(mixture, draw, generator, size, fit, covariance, d) -> None:
    true = mixture(components=3, d=d, apart=8, rank=3 if covariance == "pca" else 0)
    z, labels = draw(true, 2000, 1)
    options = {"components": 3, "fit": fit, "covariance": covariance, "rank": 3}
    whole = fit_mixture(z, labels, generator=generator(2), **options)
    parts = fit_mixture_stream(MixtureFit(**options), chunked(z, labels, size), generator(2))
    assert parts.tensors().keys() == whole.tensors().keys()
    for name, tensor in parts.tensors().items():
        if name == "basis":  # up to signs
            tensor, expected = tensor @ tensor.transpose(1, 2), whole.basis @ whole.basis.transpose(1, 2)
        else:
            expected = whole.tensors()[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(parts.log_density(z, labels).mean(), whole.log_density(z, labels).mean())


def test_chunks_of_one_class_each_and_chunks_of_nothing(mixture, draw, generator) -> None:
    z, labels = draw(mixture(), 900, 1)
    order = torch.argsort(labels, stable=True)
    z, labels = z[order], labels[order]
    whole = fit_mixture(z, labels, components=2, fit="em", generator=generator())
    empty = (z[:0], labels[:0])
    pieces = [empty, *((z[labels == c], labels[labels == c]) for c in range(3)), empty]
    parts = fit_mixture_stream(MixtureFit(components=2, fit="em"), lambda: pieces, generator())
    torch.testing.assert_close(parts.means, whole.means, rtol=1e-3, atol=1e-4)


def test_fitting_leaves_the_data_as_they_are(mixture, draw, generator) -> None:
    z, labels = draw(mixture(), 300, 1)
    before = z.clone()
    fit_mixture(z, labels, components=2, generator=generator())
    fit_mixture_stream(MixtureFit(components=2), lambda: [(z, labels)], generator())
    assert torch.equal(z, before)


@pytest.mark.parametrize("components", [2, "auto"])
def test_a_file_read_in_chunks_measures_what_a_file_in_memory_does(
    tmp_path, monkeypatch, mixture, draw, components
) -> None:
    true = mixture(d=2 * 3 * 4, apart=15)
    activations = tmp_path / "activations.h5"
    with write_file(activations, "activations") as file:
        for seed, split in enumerate(("private", "val", "test")):
            z, labels = draw(true, 1500, seed)
            file.create_dataset(f"{split}/smashed", data=z.view(-1, 2, 3, 4).numpy().astype("float16"))
            file.create_dataset(f"{split}/labels", data=labels.numpy())
    run = Run(model=Vgg11(), dataset=SyntheticDataset(), noise_std=0.05)
    fit = MixtureFit(components=components, fit="em")
    measure_mixture(run, fit, activations, tmp_path / "held.h5")
    monkeypatch.setattr(leakage, "HELD_BYTES", 1000 * 24 * 4)
    monkeypatch.setattr(leakage, "CHUNK_BYTES", 64 * 24 * 4)
    measure_mixture(run, fit, activations, tmp_path / "read.h5")
    held, read = load_mixture(tmp_path / "held.h5"), load_mixture(tmp_path / "read.h5")
    assert held.weights.shape == (3, 2)
    torch.testing.assert_close(read.means, held.means, rtol=1e-2, atol=1e-3)
    attrs = [Reader(tmp_path / name, kind="mixture").attrs for name in ("held.h5", "read.h5")]
    # The configured member is fitted to all images, the others to every second one.
    for name in ("leakage_lower_nats", "leakage_twin_nats", "bound_nats"):
        assert attrs[1][name] == pytest.approx(attrs[0][name], rel=1e-4)
    truth = true.leakage_bound(0.05)
    for found in attrs:
        assert truth < found["leakage_nats"] + 3 * found["leakage_nats_sem"] < 1.1 * truth


def test_the_images_that_are_held_are_of_every_class() -> None:
    labels = torch.tensor([0, 1, 0, 0, 2, 0, 1, 0])
    assert leakage.one_in(2, labels).tolist() == [True, True, False, True, True, False, False, True]
    assert leakage.one_in(9, labels).tolist() == [True, True, False, False, True, False, False, False]
