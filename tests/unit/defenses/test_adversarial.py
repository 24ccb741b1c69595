"""The adversary in the training: what it learns, when, and what the client pays for."""

import math

import pytest
import torch
from torch.nn.functional import interpolate, mse_loss

from cem.config import Adversarial, MobileNetV2, Run, SyntheticDataset, TopK, Torchvision, Vgg11
from cem.defenses import Place
from cem.defenses.adversarial import AdversarialDefense
from cem.metrics import ssim
from cem.models.check import check_model
from cem.models.split import ModelError

PLACE = Place(image=(1, 16, 16), smashed=(3, 4, 4), num_classes=2)
NET = "res_normN0C4"
LABELS = torch.arange(6) % 2


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CLEAN = torch.rand(6, 3, 4, 4, generator=generator(2))
IMAGES = interpolate(CLEAN.mean(1, keepdim=True), scale_factor=4.0, mode="bilinear")  # which z tells


def made(**settings) -> AdversarialDefense:
    defense = AdversarialDefense(Adversarial(net=NET, **settings))
    defense.begin_training(PLACE, generator(3), torch.device("cpu"), torch.float32)
    return defense


def tensors(defense: AdversarialDefense) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in defense.training_state.modules["adversary"].state_dict().items()}


def reconstruction(defense: AdversarialDefense) -> torch.Tensor:
    decoder = defense.training_state.modules["adversary"].get_submodule("decoder")
    with torch.no_grad():
        return decoder.eval()(CLEAN)


def test_the_client_pays_for_what_lies_beyond_the_threshold() -> None:
    found = reconstruction(made())
    similarity, error = float(ssim(found, IMAGES).mean()), float(mse_loss(found, IMAGES))
    expected = {
        ("ssim", similarity - 0.1): 0.1,
        ("ssim", similarity + 0.1): 0.0,
        ("mse", error + 0.02): 0.02,
        ("mse", 0.9 * error): 0.0,
        ("log_mse", 1.5 * error): math.log(1.5),
        ("log_mse", 0.9 * error): 0.0,
    }
    for (score, threshold), excess in expected.items():
        penalty = made(score=score, threshold=threshold, weight=0.7).penalty(IMAGES, CLEAN, LABELS)
        assert float(penalty) == pytest.approx(0.7 * excess, rel=1e-3, abs=1e-7), (score, threshold)
    assert Adversarial().limit == Adversarial(threshold=0.5).limit == -0.5


@pytest.mark.parametrize("score", ["ssim", "mse", "log_mse"])
def test_the_decoder_learns_of_its_own_steps_alone(score) -> None:
    defense = made(score=score, threshold=1.0 if score != "ssim" else -1.0, lr=0.01)
    before, moving = tensors(defense), CLEAN.clone().requires_grad_()
    defense.penalty(IMAGES, moving, LABELS).backward()
    assert moving.grad is not None
    assert moving.grad.any()
    for name, tensor in tensors(defense).items():
        assert torch.equal(tensor, before[name]), f"{name}: the client's term moves neither weights nor statistics"
    decoder = defense.training_state.modules["adversary"]
    assert all(parameter.grad is None for parameter in decoder.parameters())
    first = float(defense.penalty(IMAGES, CLEAN, LABELS))
    for _ in range(60):
        defense.learn(IMAGES, CLEAN, LABELS)
    after = tensors(defense)
    assert all(not torch.equal(after[name], before[name]) for name in before if "running" in name)
    assert float(defense.penalty(IMAGES, CLEAN, LABELS)) > first, "the decoder recovers more than before"
    assert not any(parameter.requires_grad for parameter in decoder.parameters())


def test_it_learns_from_every_third_batch_by_two_steps_each() -> None:
    defense, moved = made(interval=3, steps=2), []
    for _ in range(7):
        before = tensors(defense)
        defense.learn(IMAGES, CLEAN, LABELS)
        after = tensors(defense)
        moved.append(any(not torch.equal(after[name], before[name]) for name in after if name != "batches"))
    assert moved == [True, False, False, True, False, False, True]
    optimizer = defense.training_state.optimizers["optimizer"]
    assert {int(state["step"]) for state in optimizer.state_dict()["state"].values()} == {6}
    assert int(tensors(defense)["batches"]) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "mse"}, "score: mse needs a threshold above 0.* found none"),
        ({"score": "log_mse", "threshold": 0}, "score: log_mse needs a threshold above 0.* found 0"),
        ({"net": "dense"}, "expected res_normN<blocks>C<channels> or unet_C<channels>"),
        ({"threshold": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Adversarial(**settings)


def test_a_z_that_no_decoder_maps_to_the_image_is_refused_with_the_run() -> None:
    narrow = MobileNetV2(cut_layer=16, bottleneck=None)  # z of 5×5, which doubling alone does not bring to 36×36
    assert Run(dataset=SyntheticDataset(side=36), model=narrow, noise_std=0.1, defenses=(Adversarial(),)).id
    with pytest.raises(ValueError, match=r"adversarial cannot train its decoder .* z of 40×40 and images of 36×36"):
        Adversarial().check_z(narrow, 40, 36)
    with pytest.raises(ValueError, match="needs images of 6×6 pixels at least; found 4×4"):
        Adversarial().check_z(Vgg11(), 2, 4)
    Adversarial(score="mse", threshold=0.1).check_z(Vgg11(), 2, 4)


def test_a_network_that_has_to_be_built_is_checked_before_any_job() -> None:
    model = Torchvision(classifier="shufflenet_v2_x0_5", module="stage2", bottleneck=None)
    for defense in (Adversarial(), TopK(fraction=1e-6)):
        run = Run(dataset=SyntheticDataset(side=36), model=model, noise_std=0.1, defenses=(defense,))
        if defense.member == "adversarial":
            check_model(run, [])
        else:
            with pytest.raises(ModelError, match=r"topk: fraction 1e-06 of the \d+ numbers of z sets 0 to zero"):
                check_model(run, [])


def test_labels_are_short_and_tell_the_scores_apart() -> None:
    assert Adversarial().label == "adversarial0.3"
    assert Adversarial(score="log_mse", threshold=0.03, weight=1).label == "adversarial_log_mse1"
