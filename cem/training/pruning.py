"""Pruning in the middle of a training: channels leave the client's encoder, and the optimizer follows."""

from torch import Tensor, nn

from cem.config import Run
from cem.models.pruning import prune
from cem.training.protocol import Client


def prune_client(client: Client, fraction: float) -> None:
    """Leave out `fraction` of the channels of the encoder's convolutions; the momentum of what stays is kept."""
    assert isinstance(client.encoder, nn.Sequential)  # as every split model's
    new, optimizer = {}, client.optimizer
    for former, parameter, select in prune(client.encoder, fraction):
        new[former] = parameter
        for name, value in optimizer.state.pop(former, {}).items():
            same = isinstance(value, Tensor) and value.shape == former.shape
            optimizer.state[parameter][name] = select(value) if same else value
    for group in optimizer.param_groups:
        group["params"] = [new.get(parameter, parameter) for parameter in group["params"]]


def is_pruned(run: Run, epoch: int, step: int) -> bool:
    """Whether a training that stands at a batch of an epoch, both from 0, has been pruned."""
    return run.pruned_before is not None and (epoch, step) > (run.pruned_before, 0)
