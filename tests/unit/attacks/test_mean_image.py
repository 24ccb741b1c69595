import torch

from cem.attacks.mean_image import MeanImageAttack


def test_every_z_gets_the_mean_of_the_attackers_images(images, knowledge):
    attack = MeanImageAttack()
    fitted = attack.fit(knowledge)
    expected = (images.double() / 255).mean(0).float()
    found = attack.reconstruct(torch.rand(3, 2, 4, 4))
    assert fitted.parameters == expected.numel()
    torch.testing.assert_close(found, expected.expand(3, 1, 16, 16))
