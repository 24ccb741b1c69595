import pytest
import torch

from cem.attacks import nearest
from cem.attacks.nearest import NearestAttack


def fitted(knowledge):
    attack = NearestAttack()
    attack.fit(knowledge)
    return attack


@pytest.fixture(params=[8192, 7], ids=["one block", "many blocks"], autouse=True)
def _blocks(request, monkeypatch):
    monkeypatch.setattr(nearest, "KEYS_AT_ONCE", request.param)


def test_without_noise_an_owned_image_finds_itself(images, knowledge, problem):
    attack = fitted(knowledge)
    assert torch.equal(attack.reconstruct(problem[1](images)), images.float() / 255)


def test_left_out_image_is_never_the_answer_and_the_second_nearest_is(images, knowledge, problem):
    z = problem[1](images)
    own = torch.arange(len(images))
    distance = torch.cdist(z.flatten(1).double(), z.flatten(1).double())
    distance.fill_diagonal_(torch.inf)
    found = fitted(knowledge).search(z, own)
    assert not (found == own).any()
    assert torch.equal(found, distance.argmin(1))


def test_only_the_named_rows_are_left_out(images, knowledge, problem):
    z = problem[1](images)
    found = fitted(knowledge).search(z[10:20], torch.full((10,), 14))
    assert found.tolist() == [*range(10, 14), found[4].item(), *range(15, 20)]
    assert found[4] != 14


def test_what_all_z_share_does_not_blur_the_search(images, problem):
    _, bend, make_knowledge = problem
    shared = bend(images) / 10 + 100
    attack = fitted(make_knowledge(images, lambda raw: bend(raw) / 10 + 100))
    assert torch.equal(attack.search(shared), torch.arange(len(images)))
