"""Against a split model trained here on real digits, whose encoder the attacker neither holds nor asks."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from cem.attacks import AttackError, Server, make_attack
from cem.attacks.shadow_encoder import ShadowEncoder
from cem.config import Decoder, ShadowModel, StartingDecoder, Vgg11
from cem.jobs.interruption import Interrupted
from cem.models import make_split, seed_dropout

from . import real

MODEL = Vgg11(width=0.125, cut_layer=2, bottleneck="noRELU_C4S2")
DECODER = StartingDecoder(net="res_normN0C8", epochs=4, batch_size=32, lr=1e-2)
QUICK = ShadowModel(encoder_steps=200, encoder_lr=5e-3, discriminator_lr=5e-3, encoder_batch_size=32, decoder=DECODER)
TINY = QUICK.model_copy(
    update={"encoder_steps": 12, "decoder": DECODER.model_copy(update={"epochs": 2, "net": "res_normN0C4"})}
)
SIGMA = 0.05


@pytest.fixture(scope="module")
def split():
    """A plain loop: Adam, five passes over 3,000 digits."""
    images, labels = (part[:3000] for part in real.digits())
    draws = torch.Generator().manual_seed(0)
    encoder, classifier = make_split(MODEL, (1, 32, 32), 10, draws)
    seed_dropout(classifier, draws)
    optimizer = torch.optim.Adam([*encoder.parameters(), *classifier.parameters()], lr=3e-3)
    for _ in range(5):
        for rows in torch.randperm(3000, generator=draws).split(64):
            z = real.noise(SIGMA)(encoder(images[rows].float() / 255), draws)
            optimizer.zero_grad()
            cross_entropy(classifier(z), labels[rows]).backward()
            optimizer.step()
    return encoder.eval().requires_grad_(False), classifier.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def asking(split):
    """An attacker of 1,000 digits who may ask the encoder."""
    own = real.make_knowledge(
        real.digits()[0][3000:4000], split[0], real.noise(SIGMA), labels=real.digits()[1][3000:4000]
    )
    return replace(own, encoder=None)


@pytest.fixture(scope="module")
def knowledge(asking, split):
    """The same who may not, but is the server, and has seen z of the images that the split model was trained on."""

    def refuse(rows, generator):
        raise AttackError("asked the encoder")

    z = real.seen(real.make_knowledge(real.digits()[0][:3000], split[0], real.noise(SIGMA)))
    server = Server(split[1], MODEL, 10)
    return replace(asking, observe=refuse, corrupt=real.noise(SIGMA), server=server, seen=z)


@pytest.fixture(scope="module")
def few(knowledge):
    """The same with a quarter of the images: enough for what does not depend on how well it goes."""
    return replace(knowledge, images=knowledge.images[:200], labels=knowledge.labels[:200])


@pytest.fixture(scope="module")
def test_images(split):
    return real.make_knowledge(real.digits()[0][4000:4200], split[0], real.noise(SIGMA))


def run(knowledge, z, cfg=TINY, store=None):
    attack = make_attack(cfg, store)
    return attack.fit(knowledge), attack.reconstruct(z)


@pytest.fixture(scope="module")
def fitted(knowledge):
    attack = make_attack(QUICK)
    return attack, attack.fit(knowledge)


def test_it_comes_near_one_who_asks_and_is_no_stronger(asking, fitted, test_images):
    shadow, record = fitted
    assert record.failure == ""
    assert record.held_out_mse is None
    assert record.choices["encoder_accuracy"] > 0.7  # guessing is right once in ten
    assert 0.4 < record.choices["told_apart"] < 0.9
    decoder = make_attack(Decoder(**DECODER.model_dump()))
    decoder.fit(asking)
    mean_image = (asking.targets(slice(None)).mean(0) - test_images.targets(slice(None))).square().mean().item()
    assert 0.95 * real.mse(decoder, test_images) < real.mse(shadow, test_images) < 0.4 * mean_image


def test_what_it_has_seen_is_what_it_lives_on(knowledge, fitted, test_images):
    shadow = make_attack(QUICK.model_copy(update={"alignment": 1e-9}))  # left with the classifier's word
    record = shadow.fit(knowledge)
    assert record.choices["encoder_accuracy"] > 0.7
    assert "its z are told from those seen" in record.failure
    assert real.mse(shadow, test_images) > 1.5 * real.mse(fitted[0], test_images)


def test_of_an_encoder_that_sends_a_constant_it_rebuilds_nothing_and_says_no_failure(few, test_images):
    z = torch.full_like(few.seen, 0.3)
    record, answers = run(replace(few, seen=z), z[:200], TINY.model_copy(update={"encoder_steps": 60}))
    assert record.failure == ""
    target = test_images.targets(slice(None))
    least = (few.targets(slice(None)).mean(0) - target).square().mean()
    assert (answers - target).square().mean() > 0.99 * least


def test_an_encoder_that_suits_the_server_is_what_the_classes_are_for(few, test_images):
    z = real.seen(test_images)
    record, _ = run(few, z, TINY.model_copy(update={"encoder_steps": 0}))
    assert record.failure == "its own encoder: 0 steps: nothing was fitted"
    longer = TINY.model_copy(update={"encoder_steps": 100})
    accuracy = run(few, z, longer)[0].choices["encoder_accuracy"]
    shuffled = replace(few, labels=few.labels.roll(1))
    assert run(shuffled, z, longer)[0].choices["encoder_accuracy"] < 0.3 < accuracy


def test_interrupted_in_either_half_it_ends_with_the_same_bits(few, test_images, capsys):
    z = real.seen(test_images)
    record, expected = run(few, z)
    store = real.MemoryStore()
    for looks in (3, 5, 6):  # early in the encoder, later, within the decoder
        store.looks = looks
        with pytest.raises(Interrupted):
            run(few, z, store=store)
    store.looks = 10**9
    again, answers = run(few, z, store=store)
    told = capsys.readouterr().err
    assert "encoder: going on from memory only: step 5" in told
    assert "decoder: going on from" in told
    assert torch.equal(answers, expected)
    assert again.choices == record.choices


def test_an_encoder_that_diverges_is_a_failure_to_be_told(few, test_images):
    calls = []

    def corrupt(z, generator):
        """Overflows once, in the eighth step."""
        calls.append(len(z))
        return z * (torch.nan if len(calls) == 8 else 1)

    z = real.seen(test_images)
    record, answers = run(replace(few, corrupt=corrupt), z)
    expected = "its own encoder: its loss is nan at step 8: lower encoder_lr or discriminator_lr"
    assert record.failure == expected
    assert answers.isfinite().all()
    record, answers = run(few, z, TINY.model_copy(update={"encoder_lr": 1e30}))
    assert record.failure.startswith("its own encoder: its z are told from those seen in 100% of cases")
    assert 0 <= answers.min() <= answers.max() <= 1


@pytest.mark.parametrize(
    ("lacks", "message"),
    [
        ({"labels": None}, "set labels: true"),
        ({"server": None}, "the server's classifier"),
        ({"corrupt": None}, "the server's classifier, the defence"),
        ({"seen": None}, "z that were seen"),
    ],
)
def test_what_it_needs_is_named(few, lacks, message):
    with pytest.raises(AttackError, match=message):
        make_attack(TINY).fit(replace(few, **lacks))


def test_its_own_encoder_starts_from_the_design_alone(few, monkeypatch):
    """Weights that the settings name are the victim's, which it does not have."""
    asked = []

    def from_scratch(cfg):
        asked.append(cfg)
        return cfg.model_copy(update={"width": 2 * cfg.width})

    monkeypatch.setattr(type(MODEL), "from_scratch", property(from_scratch))
    net = ShadowEncoder(TINY, few).net
    assert asked == [MODEL]
    widest = max(tensor.shape[0] for tensor in make_split(MODEL, (1, 32, 32), 10)[0].parameters())
    assert max(tensor.shape[0] for tensor in net.parameters()) == 2 * widest


def test_foreign_classes_are_refused(few):
    with pytest.raises(AttackError, match="classes below the server's 10; found 10"):
        make_attack(TINY).fit(replace(few, labels=few.labels + 1))
