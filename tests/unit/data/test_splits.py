import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cem.config import Split, SyntheticDataset
from cem.data.sources import DataError, Labelling
from cem.data.splits import divide, split_indices


def divided(
    labels: np.ndarray,
    is_test: np.ndarray | None,
    split: Split,
    where: str = "data set",
    is_val: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    names = tuple(map(str, range(int(labels.max()) + 1)))
    known = Labelling(labels=labels, is_test=is_test, is_val=is_val, class_names=names)
    return split_indices(known, split, where, "Or do this.")


AMOUNTS = st.one_of(st.integers(10, 40), st.floats(0.06, 0.2))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(40, 90), min_size=2, max_size=6),
    split=st.builds(Split, val=AMOUNTS, shadow=AMOUNTS, test=AMOUNTS, seed=st.integers(0, 99)),
    own_test=st.booleans(),
)
def test_splits_are_disjoint_whole_and_stratified(counts: list[int], split: Split, own_test: bool) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    is_test = np.arange(len(labels)) % 2 == 0 if own_test else None
    rows = divided(labels, is_test, split)
    everything = np.concatenate(list(rows.values()))
    assert len(np.unique(everything)) == len(everything)
    rest = (
        np.arange(len(labels))[~is_test] if is_test is not None else np.setdiff1d(np.arange(len(labels)), rows["test"])
    )
    np.testing.assert_array_equal(
        np.sort(np.concatenate([rows["private"], rows["val"], rows["shadow"]])), np.sort(rest)
    )
    pools = {"test": np.flatnonzero(is_test) if is_test is not None else np.arange(len(labels))}
    for name in ("private", "val", "shadow", "test"):
        pool = labels[pools.get(name, rest)]
        exact = np.bincount(pool) / len(pool) * len(rows[name])
        assert (abs(np.bincount(labels[rows[name]], minlength=len(counts)) - exact) < 2).all()


def test_counts_and_fractions_are_exact() -> None:
    labels = np.arange(1000) % 10
    rows = divided(labels, None, Split(test=0.29, val=100, shadow=0.3, private=0.5))
    assert {name: len(part) for name, part in rows.items()} == {"private": 355, "val": 100, "shadow": 213, "test": 290}


def test_defaults_keep_a_fifth_for_test_and_give_private_the_rest() -> None:
    rows = divided(np.arange(5000) % 10, None, Split())
    assert {name: len(part) for name, part in rows.items()} == {
        "private": 2800,
        "val": 400,
        "shadow": 800,
        "test": 1000,
    }


def test_the_sources_own_val_part_is_val() -> None:
    labels, is_val = np.arange(100) % 2, np.arange(100) < 20
    rows = divided(labels, None, Split(), is_val=is_val)
    assert set(rows["val"]) == set(range(20))
    assert {split: len(part) for split, part in rows.items()} == {"private": 52, "val": 20, "shadow": 12, "test": 16}
    rows = divided(labels, np.arange(100) >= 90, Split(val=6), is_val=is_val)
    assert (len(rows["val"]), rows["val"].max() < 20, sorted(rows["test"])) == (6, True, list(range(90, 100)))
    with pytest.raises(DataError, match="split 'val' needs 21 images, but only 20 of 20 are left"):
        divided(labels, None, Split(val=21), is_val=is_val)


def test_the_sources_own_test_part_is_test() -> None:
    is_test = np.arange(700) >= 500
    rows = divided(np.arange(700) % 10, is_test, Split())
    np.testing.assert_array_equal(np.sort(rows["test"]), np.arange(500, 700))
    assert not is_test[np.concatenate([rows["private"], rows["val"], rows["shadow"]])].any()
    assert len(divided(np.arange(700) % 10, is_test, Split(test=0.5))["test"]) == 100


def test_largest_remainder_by_hand() -> None:
    labels = np.repeat([0, 1, 2], [47, 33, 20])  # quotas of 10: 4.7, 3.3, 2.0
    rows = divided(labels, None, Split(test=10))
    np.testing.assert_array_equal(np.bincount(labels[rows["test"]]), [5, 3, 2])


def test_the_seed_and_nothing_else_decides() -> None:
    labels = np.arange(500) % 5
    first, again, other = (divided(labels, None, Split(seed=seed)) for seed in (3, 3, 4))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert len(first[name]) == len(other[name])
        assert not np.array_equal(first[name], other[name])


def test_each_split_is_shuffled() -> None:
    labels = np.repeat(np.arange(5), 200)
    for part in divided(labels, None, Split()).values():
        assert (np.diff(labels[part]) != 0).mean() > 0.5  # in order of class it would be 4 changes in all
        assert (np.diff(part) > 0).mean() == pytest.approx(0.5, abs=0.15)


def test_more_than_there_is_is_refused_with_the_numbers() -> None:
    labels = np.arange(100) % 10
    with pytest.raises(
        DataError, match=r"digits: split 'test' needs 101 images, but only 100 .*\(10 to 10 for each class\)"
    ):
        divided(labels, None, Split(test=101), "digits")
    with pytest.raises(DataError, match=r"split 'shadow' needs 40 images, but only 30 of 80 are left"):
        divided(labels, None, Split(val=50, shadow=40))
    with pytest.raises(DataError, match=r"split 'private' needs 60 images, but only 50 of 80 are left"):
        divided(labels, None, Split(val=10, shadow=20, private=60))


def test_a_class_missing_from_a_split_is_refused_with_the_numbers() -> None:
    labels = np.repeat([0, 1, 2], [100, 100, 3])
    with pytest.raises(
        DataError,
        match=r"'test' has 40 images for 3 classes and gets none of class '2'.*has 3 of.* add images\. Or do this\.",
    ):
        divided(labels, None, Split())
    with pytest.raises(DataError, match="split 'private' has 0 images"):
        divided(np.arange(100) % 2, None, Split(val=40, shadow=40))
    with pytest.raises(DataError, match=r"split 'test' .* gets none of class '2'"):
        divided(labels, np.arange(203) < 200, Split())


def persons(counts: list[int], split: Split, is_test: np.ndarray | None = None):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    known = Labelling(
        labels=labels, is_test=is_test, is_val=None, class_names=tuple(f"p{number}" for number in range(len(counts)))
    )
    return labels, divide(known, SyntheticDataset(name="faces", split=split))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(10, 20), min_size=3, max_size=12),
    seed=st.integers(0, 99),
    own_test=st.booleans(),
    shadow=st.floats(0.34, 0.5),
)
def test_by_identity_no_person_of_shadow_is_anywhere_else(
    counts: list[int], seed: int, own_test: bool, shadow: float
) -> None:
    is_test = np.random.default_rng(1).random(sum(counts)) < 0.5 if own_test else None
    split = Split(by="identity", seed=seed, shadow=shadow, val=0.3, test=None if own_test else 0.3)
    try:
        labels, found = persons(counts, split, is_test)
    except DataError as error:
        if not own_test or "gets none of class" not in str(error):
            raise
        return  # the source's own test part may lack a person; in any other every one has images enough
    drawn = set(labels[found.rows["shadow"]])
    assert len(drawn) == int(shadow * len(counts))
    assert len(found.rows["shadow"]) == sum(counts[person] for person in drawn), "all images of each"
    everything = np.concatenate(list(found.rows.values()))
    np.testing.assert_array_equal(np.sort(everything), np.arange(sum(counts)))
    for name in ("private", "val", "test"):
        assert set(labels[found.rows[name]]) == set(range(len(counts))) - drawn, "each split has all the others"
    names = [*found.class_names, *found.shadow_class_names]
    assert [names[label] for label in found.labels] == [f"p{person}" for person in labels], "each keeps its name"
    assert found.labels[found.rows["shadow"]].min() == len(found.class_names)
    assert {name: count.sum() for name, count in found.counts().items()} == {
        name: len(rows) for name, rows in found.rows.items()
    }
    assert all(count.min() > 0 for count in found.counts().values())
    if is_test is not None:
        np.testing.assert_array_equal(is_test[everything], np.isin(everything, found.rows["test"]) | (
            np.isin(everything, found.rows["shadow"]) & is_test[everything]))  # fmt: skip


def test_by_identity_shadow_counts_persons_and_the_rest_is_divided_by_image() -> None:
    _, found = persons([10] * 40, Split(by="identity", val=0.2))
    assert {name: len(rows) for name, rows in found.rows.items()} == {
        "private": 205,
        "val": 51,
        "shadow": 80,
        "test": 64,
    }
    _, found = persons([10] * 40, Split(by="identity", shadow=20, val=20, test=40))
    assert {name: len(rows) for name, rows in found.rows.items()} == {
        "private": 140,
        "val": 20,
        "shadow": 200,
        "test": 40,
    }
    assert found.notes == [
        "split by identity: shadow has 20 of the 40 classes, which no other split has; the model tells the other 20 "
        "apart."
    ]


def test_by_identity_the_seed_and_nothing_else_decides() -> None:
    first, again, other = (persons([10] * 20, Split(by="identity", val=0.2, seed=seed))[1] for seed in (3, 3, 4))
    assert first.shadow_class_names == again.shadow_class_names != other.shadow_class_names
    for name, rows in first.rows.items():
        np.testing.assert_array_equal(rows, again.rows[name])


@pytest.mark.parametrize(
    ("counts", "split", "found"),
    [
        ([10, 10], {}, r"at least 3 persons, one for shadow and two to tell apart; found 2\. Add persons"),
        ([10, 1, 2, 10], {}, r"at least 3 images of every person.*'p1' \(1\), 'p2' \(2\)\. Add images, or leave"),
        ([10] * 4, {}, r"shadow to be 1 to 2 of the 4 persons; found split\.shadow 0\.2, which is 0"),
        ([10] * 4, {"shadow": 3}, r"shadow to be 1 to 2 of the 4 persons; found split\.shadow 3"),
        ([10] * 4, {"shadow": 1, "test": 2}, r"'test' has 2 images for 3 classes and gets none of class 'p"),
    ],
)
def test_by_identity_what_cannot_be_divided_is_refused(counts: list[int], split: dict[str, int], found: str) -> None:
    with pytest.raises(DataError, match=f"faces: split .*{found}"):
        persons(counts, Split(by="identity", **split))
