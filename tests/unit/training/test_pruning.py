"""Pruning in the middle of a training: the optimizer follows, the selected model is the pruned one, others read it."""

import pytest
import torch

from cem.config import Adversarial, AttentionSurrogate, MobileNetV2, Pruning, Run, SyntheticDataset, Training, Vgg11
from cem.data.prepare import prepare_data
from cem.evaluation.victim import load_network
from cem.jobs.interruption import Interrupted
from cem.models import parameter_count
from cem.storage.hdf5 import open_activations, open_dataset
from cem.storage.tensors import save_checkpoint
from cem.surrogates import Surrogate
from cem.training.protocol import train_batch
from cem.training.pruning import is_pruned, prune_client
from cem.training.stages import Task, extract_activations

from .conftest import DATASET
from .small import FileStore, make_batch, make_state, train

HALF = Pruning(fraction=0.5, at=0.5)
SHARED = AttentionSurrogate(embedding=16, reduced=16, slots=3, components=2, optimizer="shared")


@pytest.mark.parametrize("surrogate", [None, SHARED])
def test_the_optimizer_holds_what_is_left_and_its_momentum(make_run, surrogate) -> None:
    settings = {} if surrogate is None else {"surrogate": surrogate}
    state = make_state(make_run(defenses=(HALF,), training=Training(epochs=2, warmup_epochs=0), **settings))
    client, server = state.client, state.server
    for step in range(3):
        train_batch(client, server, make_batch(step), 0.5, surrogate is not None)
    names = [name for name, _ in client.encoder.named_parameters()]
    weights = {name: parameter.detach().clone() for name, parameter in client.encoder.named_parameters()}
    momenta = {
        name: client.optimizer.state[p]["momentum_buffer"].clone() for name, p in client.encoder.named_parameters()
    }
    others = len(client.optimizer.param_groups[0]["params"]) - len(names)
    prune_client(client, 0.5)
    held = client.optimizer.param_groups[0]["params"]
    assert [id(p) for p in held[: len(names)]] == [id(p) for p in client.encoder.parameters()]
    assert len(held) == len(names) + others == len(client.optimizer.state)
    for name, parameter in client.encoder.named_parameters():
        momentum = client.optimizer.state[parameter]["momentum_buffer"]
        assert momentum.shape == parameter.shape
        pairs = dict(zip(weights[name].flatten().tolist(), momenta[name].flatten().tolist(), strict=True))
        if len(pairs) == weights[name].numel():  # where weights are told apart: each keeps its own momentum
            found = dict(zip(parameter.detach().flatten().tolist(), momentum.flatten().tolist(), strict=True))
            assert found.items() <= pairs.items(), name
    before = [parameter.detach().clone() for parameter in client.encoder.parameters()]
    train_batch(client, server, make_batch(3), 0.5, surrogate is not None)
    assert all(not torch.equal(a, b) for a, b in zip(before, client.encoder.parameters(), strict=True))


def test_a_training_ends_with_the_pruned_network_whatever_was_better_before(make_run, tmp_path) -> None:
    run = make_run(defenses=(HALF,), training=Training(epochs=4, warmup_epochs=1, milestones=(), batch_size=32))
    state, sizes = make_state(run), []
    whole = parameter_count(state.client.encoder)
    for until in (2, 3, 4):
        train(state, run, tmp_path / "state", until)
        sizes.append(parameter_count(state.client.encoder))
        assert bool(state.best) == (until > 2), "the network before pruning is not the one that was asked for"
    assert sizes[0] == whole > sizes[1] == sizes[2]
    assert [is_pruned(run, *place) for place in ((1, 5), (2, 0), (2, 1), (3, 0))] == [False, False, True, True]


def test_a_training_that_is_stopped_again_and_again_ends_with_the_same_bits(make_run, tmp_path) -> None:
    """With an adversary: its weights, its optimizer and its count of batches go on, too."""
    dataset = SyntheticDataset(images=300, classes=3, channels=1)
    defenses = (Adversarial(net="res_normN0C1", threshold=-1, interval=2), Pruning(fraction=0.4, at=0.5))
    training = Training(epochs=3, warmup_epochs=1, batch_size=32, milestones=())
    run, path, ends = make_run(dataset=dataset, defenses=defenses, training=training), tmp_path / "data.h5", []
    prepare_data(dataset, path)
    with open_dataset(path) as file:
        for name, looks in (("straight", None), ("stopped", 4)):
            for _ in range(20):
                task, store = Task(run, file, torch.device("cpu"), Surrogate()), FileStore(tmp_path / name, looks)
                try:
                    task.fit(store, until=3)
                except Interrupted:
                    continue
                break
            ends.append((task.state.learned()[0] | task.state.best, task.state.best_epoch))
    (expected, epoch), (found, other) = ends
    assert found.keys() == expected.keys()
    assert {"adversarial_adversary.batches", "client_optimizer.0.momentum_buffer"} < found.keys()
    assert other == epoch == 2
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_later_stages_read_the_pruned_network(make_run, data, tmp_path) -> None:
    run, model, out = make_run(defenses=(HALF,)), tmp_path / "model.safetensors", tmp_path / "activations.h5"
    with open_dataset(data) as file:
        state = Task(run, file, torch.device("cpu"), Surrogate()).state
        prune_client(state.client, 0.5)
        save_checkpoint(model, "model", state.model(), {})
        network = load_network(model, run, file, torch.device("cpu"))
    assert parameter_count(network.encoder) == parameter_count(state.client.encoder)
    extract_activations(run, data, model, "model", "auto", out)
    with open_activations(out) as stored:
        assert stored.smashed_shape == (4, 8, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": MobileNetV2()}, "pruning cannot take channels from mobilenet_v2"),
        ({"model": Vgg11(client_pruned=0.1)}, "found client_pruned: 0.1"),
        ({"training": Training(epochs=4, warmup_epochs=3)}, "after the 3 epochs of warm-up.* found it after 2"),
        ({"defenses": (Pruning(at=0.99),), "training": Training(epochs=4)}, "before the 4 of all.* found it after 4"),
    ],
)
def test_what_cannot_be_pruned_is_refused_with_the_run(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Run(**{"dataset": DATASET, "defenses": (HALF,)} | settings)


def test_the_published_epoch() -> None:
    run = Run(dataset=DATASET, defenses=(Pruning(),))
    assert (run.pruned_before, run.trained_model) == (180, Vgg11(client_pruned=0.05))
    assert Run(dataset=DATASET).trained_model == Vgg11()
    assert Run(dataset=DATASET).pruned_before is None
