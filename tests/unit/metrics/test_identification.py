import pytest
import torch

from cem.metrics import OTHERS, Gallery, MetricError, Pools, identified


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def originals(n=250, seed=0):
    return torch.randint(0, 256, (n, 1, 6, 6), generator=generator(seed), dtype=torch.uint8)


def draw_pool(n, draws, others=99):
    """The rows to compare with, of a whole split."""
    return Pools(n, draws, others).rows(torch.arange(n))


def rank_one(reconstruction, images, pool):
    """By the definition: all squared differences, summed."""
    found = []
    for i, others in enumerate(pool):
        own = (reconstruction[i].double() - images[i].double() / 255).square().sum()
        distance = (reconstruction[i].double() - images[others].double() / 255).square().flatten(1).sum(1)
        found.append(bool((own < distance).all()))
    return torch.tensor(found)


@pytest.mark.parametrize(("n", "others"), [(100, 99), (101, 99), (250, 99), (1000, 99), (1000, 999), (1500, 999)])
def test_each_image_meets_as_many_different_others_and_never_itself(n, others):
    assert others in OTHERS
    pool = draw_pool(n, generator(), others)
    assert pool.shape == (n, others)
    for own, found in enumerate(pool.tolist()):
        assert len({own, *found}) == others + 1
        assert set(found) <= set(range(n))


def test_some_rows_meet_whom_they_meet_among_all():
    pools, whole = Pools(1500, generator(), 999), draw_pool(1500, generator(), 999)
    rows = torch.tensor([3, 999, 1000, 1499])
    assert torch.equal(pools.rows(rows), whole[rows])


def test_pool_is_repeatable_and_hangs_on_its_seed():
    assert torch.equal(draw_pool(300, generator()), draw_pool(300, generator()))
    assert not torch.equal(draw_pool(300, generator()), draw_pool(300, generator(1)))


def test_blocks_of_images_meet_others_of_their_own():
    pool = draw_pool(1000, generator())
    first, second = set(pool[:100].flatten().tolist()), set(pool[100:200].flatten().tolist())
    assert len(first) == len(second) == 100
    assert len(first & second) < 50


def test_a_split_that_is_too_small_is_refused():
    with pytest.raises(MetricError, match=r"more than 99 images.*found 99"):
        draw_pool(99, generator())


def test_it_is_its_definition():
    images = originals()
    noise = torch.rand(images.shape, generator=generator(1))
    pool, own = draw_pool(len(images), generator()), torch.arange(len(images))
    for part in (0.0, 0.8, 0.9, 1.0):
        reconstruction = (1 - part) * images.float() / 255 + part * noise
        found = identified(reconstruction, images, own, pool)
        assert torch.equal(found, rank_one(reconstruction, images, pool))
        alone = [identified(reconstruction[i : i + 1], images, own[i : i + 1], pool[i : i + 1]) for i in range(20)]
        assert torch.equal(found[:20], torch.cat(alone))


@pytest.mark.parametrize(("others", "least", "most"), [(99, 0.002, 0.02), (999, 0, 0.004)])
def test_perfect_reconstructions_are_identified_and_noise_as_often_as_by_chance(others, least, most):
    images = originals(2000)
    own, pool = torch.arange(2000), draw_pool(2000, generator(), others)
    assert identified(images.float() / 255, images, own, pool).all()
    guesses = torch.rand(images.shape, generator=generator(5)) * 0.02 + 0.49
    assert least <= identified(guesses, images, own, pool).float().mean() < most  # 1 in 100, ± 3 × 0.0022; 1 in 1,000


@pytest.mark.parametrize("others", [99, 999])
def test_a_mean_image_identifies_one_image_of_each_pool(others):
    """Whatever the split: the one that is nearest to it. So its rate is chance, 1 / (others + 1), without a spread."""
    images = originals(others + 1)
    own, pool = torch.arange(others + 1), draw_pool(others + 1, generator(), others)
    mean = images.float().mean(0, keepdim=True).expand(images.shape) / 255
    assert identified(mean, images, own, pool).sum() == 1


def test_the_order_of_the_pool_does_not_matter_and_another_images_reconstruction_is_not_identified():
    images = originals(1000)
    own, pool = torch.arange(1000), draw_pool(1000, generator(), 999)
    noisy = (images.float() / 255 + 0.5 * torch.randn(images.shape, generator=generator(3))).clamp(0, 1)
    found = identified(noisy, images, own, pool)
    assert 0.1 < found.float().mean() < 1
    shuffled = pool[:, torch.randperm(999, generator=generator(4))]
    assert torch.equal(identified(noisy, images, own, shuffled), found)
    assert not identified(images.roll(1, 0).float() / 255, images, own, pool).any()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("others", [99, 999])
def test_a_gallery_says_the_same_of_any_batches(monkeypatch, others, kept):
    """Rows of several blocks in one batch, and back in an earlier block; two images are alike."""
    if not kept:
        monkeypatch.setattr("cem.metrics.identification._VALUES_KEPT", 1)
    images = originals(2300)
    images[5] = images[6]
    noisy = (images.float() / 255 + 0.5 * torch.randn(images.shape, generator=generator(3))).clamp(0, 1)
    noisy[:50] = images[:50] / 255
    gallery = Gallery(images, generator(), others)
    expected = identified(noisy, images, torch.arange(2300), draw_pool(2300, generator(), others))
    for first, last in ((0, 256), (60, 130), (900, 2250), (0, 50), (2290, 2300)):
        assert torch.equal(gallery.identified(noisy[first:last], torch.arange(first, last)), expected[first:last])
    assert 0.1 < expected.float().mean() < 1
    with pytest.raises(MetricError, match=r"reconstructions in \[0, 1\]"):
        gallery.identified(noisy[:3] + 1, torch.arange(3))


def test_large_images_are_compared_in_parts_with_the_same_result(monkeypatch):
    images = originals(300)
    own, pool = torch.arange(300), draw_pool(300, generator())
    noisy = (images.float() / 255 + 0.5 * torch.randn(images.shape, generator=generator(3))).clamp(0, 1)
    whole = identified(noisy, images, own, pool)
    monkeypatch.setattr("cem.metrics.identification._VALUES_AT_ONCE", 36 * 7)
    assert torch.equal(identified(noisy, images, own, pool), whole)
    assert not whole.all()


def test_a_tie_is_no_identification():
    images = originals()
    images[1] = images[0]
    own = torch.arange(2)
    pool = torch.tensor([[1, 5], [0, 7]])
    exact = images[:2].float() / 255
    assert not identified(exact, images, own, pool).any()  # a copy of the original is as near as the original
    noisy = (exact + 0.1 * torch.rand(exact.shape, generator=generator(2))).clamp(0, 1)
    assert not identified(noisy, images, own, pool).any()
    assert identified(exact, images, own, pool[:, 1:]).all()


@pytest.mark.parametrize("side", [6, 64])
def test_one_grey_level_in_one_pixel_is_seen(side):
    images = torch.full((2, 3, side, side), 255, dtype=torch.uint8)
    images[1, 2, 3, 3] = 254
    swapped = images.flip(0).float() / 255
    own, pool = torch.arange(2), torch.tensor([[1], [0]])
    assert identified(images.float() / 255, images, own, pool).all()
    assert not identified(swapped, images, own, pool).any()


def test_what_cannot_be_compared_is_refused():
    images, own = originals(), torch.arange(3)
    pool = draw_pool(250, generator())[:3]
    with pytest.raises(MetricError, match=r"of images \(1, 6, 6\).*found \(3, 1, 6, 7\)"):
        identified(torch.zeros(3, 1, 6, 7), images, own, pool)
    with pytest.raises(MetricError, match="a row of the original"):
        identified(torch.zeros(2, 1, 6, 6), images, torch.arange(2), pool)
    with pytest.raises(MetricError, match=r"reconstructions in \[0, 1\]"):
        identified(torch.full((3, 1, 6, 6), 2.0), images, own, pool)
