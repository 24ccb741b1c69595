"""A study small enough to train in seconds, and a driver that trains it in a process of its own."""

from pathlib import Path

import pytest
from forked import Forked

from cem.config import Run, SyntheticDataset, Training, Vgg11
from cem.data.prepare import prepare_data

DATASET = SyntheticDataset(images=2000, classes=4, channels=1)
TRAINING = Training(epochs=4, warmup_epochs=2, batch_size=32, milestones=(0.5,))
DRIVER = """
import sys
from pathlib import Path
from cem.config import Run
from cem.training import train, warm_up, extract_activations, measure_mixture

run = Run.model_validate_json(Path(sys.argv[1]).read_text())
data, folder = Path(sys.argv[2]), Path(sys.argv[3])
warm = folder / "warm"
if not (warm / "done").exists():  # its files may be there, and its state, too, when it is killed just before its end
    warm_up(run, data, warm / "model.safetensors", warm / "history.csv", folder)
    (warm / "done").touch()
mixture = None
if run.surrogate.mixture is not None:
    mixture = warm / "mixture.h5"
    if not mixture.exists():
        extract_activations(run, data, warm / "model.safetensors", "warm_up", "float16", warm / "activations.h5")
        measure_mixture(run, run.surrogate.mixture, warm / "activations.h5", mixture)
train(run, data, warm / "model.safetensors", warm / "history.csv", mixture, folder / "run", folder)
"""


@pytest.fixture(scope="session")
def make_run():
    """Makes a run that trains in a second or two."""

    def made(**settings) -> Run:
        settings = {"training": TRAINING, "dataset": DATASET, "noise_std": 0.05, **settings}
        return Run(model=Vgg11(width=0.05, bottleneck="noRELU_C4S1"), **settings)

    return made


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "synthetic.h5"
    prepare_data(DATASET, path)
    return path


@pytest.fixture(scope="session")
def start():
    """Starts a training in a process of its own; its standard error goes to a file beside the results."""

    def started(run: Run, data: Path, folder: Path) -> Forked:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(run.model_dump_json())
        return Forked(DRIVER, folder / "run.json", data, folder, log=folder / "log")

    return started
