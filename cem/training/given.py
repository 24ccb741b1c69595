"""A network that is given: taken as it is, with nothing trained, to be attacked and measured like any other."""

import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from cem import NUMERICS, __version__
from cem.config import Run
from cem.defenses import make_defense
from cem.jobs.interruption import resumable
from cem.jobs.process import device_name, make_generator, peak_memory_mb, set_up_process
from cem.jobs.state import state_folder
from cem.jobs.work import name_work
from cem.models import make_split, parameter_count
from cem.storage.files import digests_of, sha256, write_text
from cem.storage.hdf5 import open_dataset
from cem.storage.job_records import Attempt, TrainRecord
from cem.storage.records import write_record
from cem.storage.tensors import save_checkpoint
from cem.training.history import history_csv
from cem.training.measure import measure_accuracy
from cem.training.stages import split_loader


def take_as_given(run: Run, data: Path, out: Path, results: Path) -> None:
    """What `train` is for a run that is not trained: the same files, from the weights that the settings name.

    history.csv has no rows, and train.json the accuracies of the network under the run's defence and noise, 0 epochs
    and the SHA-256 of the files that the network came from. Weights that nobody names are random, from the run's seed.
    Where z comes with the data there is no network: then there are no tensors, and no accuracy.
    """
    device = set_up_process(run.training.threads)
    if not run.model.has_network:
        header = {"run": run.id, "settings": run.sparse(), "files": {}}
        save_checkpoint(out / "model.safetensors", "model", {}, header)
        _write(run, out, device, accuracy={}, parameters={}, attempts=[], files={})
        return
    files = digests_of(run.model.files)
    folder = state_folder(results, {"take_as_given": run.sparse()}, {"data": sha256(data)} | files)
    with open_dataset(data) as file, resumable(folder, device_name(device)) as store:
        name_work(folder, out)
        # Before the start only where the classes were known, which downloaded data says later.
        run.model.check_weights(file.image_shape, file.num_classes)
        weights = make_generator(run.seed, "model", torch.device("cpu"))
        halves = make_split(run.model, file.image_shape, file.num_classes, weights)
        named = dict(zip(("encoder", "classifier"), halves, strict=True))
        tensors = {f"{name}.{key}": one for name, half in named.items() for key, one in half.state_dict().items()}
        encoder, classifier = (half.to(device) for half in halves)
        defense = make_defense(run.noise_std, run.defenses)
        accuracy = {
            split: measure_accuracy(encoder, classifier, defense, split_loader(run, file, split, device), run.seed)
            for split in ("test", "val")
        }
        header = {"run": run.id, "settings": run.sparse(), "files": files}
        save_checkpoint(out / "model.safetensors", "model", tensors, header)
        parameters = {name: parameter_count(half) for name, half in named.items()}
        _write(run, out, device, accuracy, parameters, store.end(), files)


def _write(
    run: Run,
    out: Path,
    device: torch.device,
    accuracy: Mapping[str, float],
    parameters: dict[str, int],
    attempts: list[Attempt],
    files: dict[str, str],
) -> None:
    write_text(out / "history.csv", history_csv([]))
    record = TrainRecord(
        run=run.id,
        accuracy_test=accuracy.get("test"),
        accuracy_val=accuracy.get("val"),
        best_epoch=0,
        epochs=0,
        seconds=0.0,
        warmup_seconds=0.0,
        parameters=parameters,
        peak_memory_mb=peak_memory_mb(device),
        device=device_name(device),
        threads=run.training.threads,
        versions={"cem": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        numerics=NUMERICS,
        attempts=attempts,
        lost_seconds=sum(attempt.lost_seconds for attempt in attempts),
        files=files,
    )
    write_record(out / "train.json", record)
