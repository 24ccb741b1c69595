"""The stages that make and measure a trained model: each reads files, writes files and is one rule."""

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from cem import NUMERICS, __version__
from cem.config import NoSurrogate, Run
from cem.data.loader import OnDeviceLoader
from cem.defenses import Place, initial_noise_std, load_defense, make_defense
from cem.jobs.interruption import resumable
from cem.jobs.process import device_name, make_generator, peak_memory_mb, set_up_process
from cem.jobs.state import StateStore, state_folder
from cem.jobs.work import name_work
from cem.mixture import load_mixture
from cem.models import make_split, parameter_count, seed_dropout, smashed_shape
from cem.storage.files import digests_of, sha256, write_text
from cem.storage.hdf5 import SPLITS, DatasetReader, open_dataset, write_file
from cem.storage.job_records import TrainRecord
from cem.storage.records import write_record
from cem.storage.tensors import check_files, load_checkpoint, save_checkpoint, subset
from cem.surrogates import Surrogate, make_surrogate
from cem.training.distributed import World
from cem.training.history import history_csv, read_history
from cem.training.loop import train_epochs
from cem.training.measure import measure_accuracy
from cem.training.precision import DType, stored_dtype
from cem.training.protocol import make_parties
from cem.training.pruning import is_pruned, prune_client
from cem.training.ranks import Inputs, train_in_ranks
from cem.training.state import State
from cem.types import Smashed


def warm_up(run: Run, data: Path, model: Path, history: Path, results: Path, ranks: int = 1) -> None:
    """Train the first epochs without a surrogate; every run that differs only in the surrogate goes on from here.

    ranks: processes that do it, a GPU each.
    """
    device = set_up_process(run.training.threads)
    plain = run.model_copy(update={"surrogate": NoSurrogate()})
    files = digests_of(run.model.files)
    folder = state_folder(results, {"warm_up": plain.sparse()}, {"data": sha256(data)} | files)
    with open_dataset(data) as file, resumable(folder, device_name(device)) as store:
        name_work(folder, model.parent)
        inputs = Inputs(plain, data)
        train_in_ranks(inputs, ranks, store)
        task = make_task(inputs, file, device)
        task.fit(store, inputs.until)
        tensors, header = task.state.learned()
        save_checkpoint(model, "warm_up", tensors, header | _made_from(files))
        write_text(history, history_csv(task.state.history))


def train(
    run: Run,
    data: Path,
    warm_model: Path,
    warm_history: Path,
    mixture: Path | None,
    out: Path,
    results: Path,
    ranks: int = 1,
) -> None:
    """Train a run from its warm-up to the end; write model.safetensors, history.csv and train.json into `out`.

    The model is the one with the best accuracy on `val` among the epochs that have the learning rate, λ(t) and
    threshold of the last one; `test` is scored once. ranks: processes that train, a GPU each.
    """
    device = set_up_process(run.training.threads)
    digests = {"data": sha256(data), "warm_up": sha256(warm_model), "mixture": sha256(mixture) if mixture else ""}
    files = digests_of(run.model.files)
    folder = state_folder(results, {"train": run.sparse()}, digests | files)
    with open_dataset(data) as file, resumable(folder, device_name(device)) as store:
        name_work(folder, out)
        inputs = Inputs(run, data, warm_model, warm_history, mixture)
        train_in_ranks(inputs, ranks, store)
        task = make_task(inputs, file, device)
        task.fit(store, inputs.until)
        header = {"run": run.id, "settings": run.sparse()} | _made_from(files)
        save_checkpoint(out / "model.safetensors", "model", task.state.best, header)
        write_text(out / "history.csv", history_csv(task.state.history))
        write_record(out / "train.json", _record(task, file, store, files))


def extract_activations(run: Run, data: Path, model: Path, kind: str, dtype: DType, out: Path) -> None:
    """Write the clean ẑ of all splits. kind: `model` (a trained run) or `warm_up`. dtype: see `stored_dtype`.

    The file's attributes say which format the numbers have, and why.
    """
    device = set_up_process(run.training.threads)
    with open_dataset(data) as file:
        tensors, header = load_checkpoint(model, kind)
        check_files(model, header, run.model.files)
        settings = run.trained_model if kind == "model" else run.model
        encoder, _ = make_split(settings, file.image_shape, file.num_classes, defenses=run.defenses)
        encoder.load_state_dict(subset(tensors, "encoder"))
        encoder.to(device)
        shape = smashed_shape(encoder, file.image_shape)
        encoder.eval()

        def encoded(split: str) -> Iterator[Smashed]:
            with torch.no_grad():
                for images, _ in split_loader(run, file, split, device).plain(512):
                    yield encoder(images)

        learned = subset(tensors, "defense")
        channel = load_defense(run, shape, learned, device).channel
        stored_as, why = stored_dtype(dtype, channel.white_std, (part for split in SPLITS for part in encoded(split)))
        attrs = {"smashed_dtype": stored_as, "smashed_dtype_why": why}
        with write_file(out, "activations", sources={"data": data, "model": model}, attrs=attrs) as target:
            for split in SPLITS:
                labels = file.labels(split)
                stored = target.create_dataset(f"{split}/smashed", (len(labels), *shape), dtype=stored_as)
                row = 0
                for part in encoded(split):
                    stored[row : row + len(part)] = part.cpu().numpy()
                    row += len(part)
                target.create_dataset(f"{split}/labels", data=labels)
            for name, tensor in learned.items():
                target.create_dataset(f"defense/{name}", data=tensor.numpy())


class Task:
    """A training: its modules, loaders and state. world: the processes that make it; absent: this one."""

    def __init__(
        self, run: Run, file: DatasetReader, device: torch.device, surrogate: Surrogate, world: World | None = None
    ) -> None:
        self.run, self.device = run, device
        purposes = ("data", "noise", "dropout", "surrogate")
        generators = {purpose: make_generator(run.seed, purpose, device) for purpose in purposes}
        weights = make_generator(run.seed, "model", torch.device("cpu"))
        encoder, classifier = make_split(run.model, file.image_shape, file.num_classes, weights, run.defenses)
        for half in (encoder, classifier):
            seed_dropout(half, generators["dropout"])
        classifier.to(device)
        defense = make_defense(run.noise_std, run.defenses)
        place = Place(file.image_shape, smashed_shape(encoder, file.image_shape), file.num_classes)
        initial = make_generator(run.seed, "defense", torch.device("cpu"))
        defense.begin_training(place, initial, next(classifier.parameters()))
        encoder.to(device)
        parties = make_parties(run, encoder, classifier, defense, surrogate.to(device), generators, world)
        self.state = State(*parties, generators)
        self.private = split_loader(run, file, "private", device, generators["data"])
        self.val = split_loader(run, file, "val", device)
        self.state.client.world.check_batch(self.private.batch_size)

    def fit(self, store: StateStore, until: int) -> None:
        """Train, going on from the saved state where there is one."""
        saved = store.load()
        if saved is not None:
            if is_pruned(self.run, saved[1]["epoch"], saved[1]["step"]):
                prune_client(self.state.client, self.run.trained_model.pruned_part)  # to the shapes that were saved
            self.state.restore(*saved)
            if self.state.epoch < until:
                print(
                    f"going on from {store.place}: epoch {self.state.epoch + 1}, batch {self.state.step}",
                    file=sys.stderr,
                )
        train_epochs(self.state, self.run, self.private, self.val, until, store)


def make_task(inputs: Inputs, file: DatasetReader, device: torch.device, world: World | None = None) -> Task:
    """A training before its first step, as what it is made from says."""
    run = inputs.run
    if inputs.warm_model is None or inputs.warm_history is None:
        return Task(run, file, device, Surrogate(), world)
    labels = torch.from_numpy(file.labels("private"))
    tensors, header = load_checkpoint(inputs.warm_model, "warm_up")
    check_files(inputs.warm_model, header, run.model.files)
    encoder, _ = make_split(run.model, file.image_shape, file.num_classes, defenses=run.defenses)
    shape = smashed_shape(encoder, file.image_shape)
    surrogate = make_surrogate(
        run.surrogate,
        smashed_shape=shape,
        num_classes=file.num_classes,
        noise_std=initial_noise_std(run, shape),
        class_prior=torch.bincount(labels, minlength=file.num_classes) / len(labels),
        num_samples=len(labels),
        mixture=load_mixture(inputs.mixture) if inputs.mixture else None,
        seed=run.seed,
    )
    task = Task(run, file, device, surrogate, world)
    task.state.restore_learned(tensors, header)
    task.state.history = read_history(inputs.warm_history)
    return task


def split_loader(
    run: Run, file: DatasetReader, split: str, device: torch.device, generator: torch.Generator | None = None
) -> OnDeviceLoader:
    """A split on the device, in the run's batches; generator: of their order, absent: the split's own."""
    images, labels = torch.from_numpy(file.images(split)), torch.from_numpy(file.labels(split))
    return OnDeviceLoader(
        images.to(device),
        labels.to(device),
        run.training.batch_size,
        run.dataset.augmentation,
        generator if generator is not None else make_generator(run.seed, split, device),
    )


def _made_from(files: dict[str, str]) -> dict[str, dict[str, str]]:
    """What a model's header says of the files that the network came from: nothing where there are none."""
    return {"files": files} if files else {}


def _record(task: Task, file: DatasetReader, store: StateStore, files: dict[str, str]) -> TrainRecord:
    """What a finished training says of itself. Scores the selected model on test, and closes the attempts."""
    run, state = task.run, task.state
    client, classifier = state.client, state.server.classifier
    client.encoder.load_state_dict(subset(state.best, "encoder"))
    client.defense.learned.load_state_dict(subset(state.best, "defense"))
    classifier.load_state_dict(subset(state.best, "classifier"))
    accuracy = measure_accuracy(
        client.encoder, classifier, client.defense, split_loader(run, file, "test", task.device), run.seed
    )
    seconds = {phase: sum(row.seconds for row in state.history if row.phase == phase) for phase in ("warm_up", "train")}
    modules = {"encoder": client.encoder, "classifier": classifier, "surrogate": client.surrogate}
    modules |= {"defense": client.defense.learned} if len(client.defense.learned) else {}
    attempts = store.end()
    # Where several processes have trained, this one has not: the first of them wrote its memory down.
    trained = [row.peak_memory_mb or 0.0 for row in state.history if row.phase == "train"]
    return TrainRecord(
        run=run.id,
        accuracy_test=accuracy,
        accuracy_val=state.best_accuracy,
        best_epoch=state.best_epoch + 1,
        epochs=run.training.epochs,
        seconds=seconds["train"],
        warmup_seconds=seconds["warm_up"],
        parameters={name: parameter_count(module) for name, module in modules.items()},
        peak_memory_mb=max([peak_memory_mb(task.device), *trained]),
        device=device_name(task.device),
        threads=run.training.threads,
        versions={"cem": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        numerics=NUMERICS,
        attempts=attempts,
        lost_seconds=sum(attempt.lost_seconds for attempt in attempts),
        files=files,
    )
