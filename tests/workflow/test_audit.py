"""`cem audit`: one command from a checkpoint, or from activations alone, to a report."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
ATTACKS = "[{kind: mean_image}, {kind: linear}]"
TRAINED_ELSEWHERE = """
import torch
from torch import nn

SIZES = (16, "M", 16, "M", 32, 32, "M", 32, 32, "M", 32, 32, "M")  # VGG-11, narrow

def build(num_classes=3):
    layers, before = [], 3
    for size in SIZES:
        if size == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(before, size, 3, padding=1), nn.BatchNorm2d(size), nn.ReLU(inplace=True)]
            before = size
    return nn.Sequential(nn.Sequential(*layers), nn.Flatten(), nn.Linear(before, num_classes))

if __name__ == "__main__":
    torch.manual_seed(0)
    data, net = torch.load("train.pt"), build()
    optimizer = torch.optim.Adam(net.parameters(), 0.003)
    for step in range(40):
        loss = nn.functional.cross_entropy(net(data["x"]), data["y"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(net.state_dict(), "vgg.pt")
"""
RELEASED = """
from torch import nn

class Split(nn.Module):  # as the released code has it: what the client holds, the cloud's layers, the classifier
    def __init__(self, classes=3):
        super().__init__()
        self.local = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(4))
        self.cloud = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4))
        self.classifier = nn.Linear(32, classes)
    def forward(self, x):
        return self.classifier(self.cloud(self.local(x)).flatten(1))
"""


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}


def audit(folder: Path, *arguments: str) -> pd.DataFrame:
    """The results of the one command, of test images."""
    command = [sys.executable, "-m", "cem.cli", "audit", *arguments, "--cores", "1"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment(folder), check=False
    )
    logs = "\n".join(path.read_text() for path in folder.glob("logs/**/*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert (folder / "results/audit/report.html").is_file()
    results = pd.read_csv(folder / "results/audit/results.csv", keep_default_na=False)
    return results[results["scope"] == "infer"].astype({"mse": float})


def page(folder: Path) -> str:
    return (folder / "results/audit/report.html").read_text(encoding="utf-8")


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is where they are bright."""
    rng, labels = np.random.default_rng(0), np.arange(count) % 3
    found = rng.integers(0, 100, (count, 32, 32, 3))
    for label in range(3):
        found[labels == label, 10 * label : 10 * label + 10] += 120
    return found.astype(np.uint8), labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    x, y = images(150)
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    return tmp_path


@pytest.mark.workflow
def test_a_resnet_of_torchvision_with_random_weights(data: Path) -> None:
    found = audit(data, "torchvision:resnet18@layer1", "--data", "mine.npz", "--attacks", "[{kind: mean_image}]")
    assert set(found["arch"]) == {"torchvision-resnet18-layer1"}
    assert set(found["leakage_nats"].astype(float)) == {float("inf")}, "it adds no noise"


@pytest.mark.workflow
def test_a_vgg_that_was_trained_outside_the_project(data: Path) -> None:
    (data / "vgg.py").write_text(TRAINED_ELSEWHERE)
    x, y = images(150)
    torch.save({"x": torch.from_numpy(x).permute(0, 3, 1, 2) / 255, "y": torch.from_numpy(y)}, data / "train.pt")
    subprocess.run([sys.executable, "vgg.py"], cwd=data, check=True, env=environment(data), timeout=300)
    cut = ("vgg.py", "--data", "mine.npz", "--cut", "0.3", "--weights", "vgg.pt")
    found = audit(data, *cut, "--attacks", ATTACKS, "--noise", "0.1")
    mse = found.set_index("attack")["mse"]
    assert found["accuracy"].astype(float).min() > 0.6, "the weights are in force"
    assert mse["linear"] < 0.8 * mse["mean_image"]
    assert np.isfinite(found["leakage_nats"].astype(float)).all()
    assert "a weak attack cannot be told from a strong defence" in page(data)
    assert yaml.safe_load((data / "audit.yaml").read_text())["training"] == "none"


@pytest.mark.workflow
def test_a_checkpoint_as_it_was_released_with_undefended_weights_beside_it(data: Path) -> None:
    (data / "released.py").write_text(RELEASED)
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(RELEASED, scope)
    for seed, name in enumerate(("defended", "plain")):
        torch.manual_seed(seed)
        net = scope["Split"]()
        cloud = {f"module.{key}": value for key, value in net.cloud.state_dict().items()}
        cloud |= {f"classifier.{key}": value for key, value in net.classifier.state_dict().items()}
        torch.save(net.local.state_dict(), data / f"{name}_f.tar")
        torch.save(cloud, data / f"{name}_cloud.tar")
    files = {
        name: [
            f"{{path: {name}_f.tar, keys: {{'': local.}}}}",
            f"{{path: {name}_cloud.tar, keys: {{module.: cloud., classifier.: classifier.}}}}",
        ]
        for name in ("defended", "plain")
    }
    named = [part for one in files["defended"] for part in ("--weights", one)]
    named += [part for one in files["plain"] for part in ("--reference", one)]
    found = audit(
        data, "released.py", "--make", "Split", "--cut", "local", "--data", "mine.npz", *named, "--attacks", ATTACKS
    )
    assert len(set(found["run"])) == 2
    assert sorted(set(found["reference"])) in ([False, True], ["False", "True"])
    assert "No gate" not in page(data)


@pytest.mark.workflow
def test_activations_alone(tmp_path: Path) -> None:
    x, y = images(120)
    z = x.reshape(120, 4, 8, 4, 8, 3).mean((2, 4)).transpose(0, 3, 1, 2).astype(np.float32) / 255
    splits = dict(zip(("private", "val", "shadow", "test"), np.split(np.arange(120), 4), strict=True))
    arrays = {"z": z, "x": x, "y": y}
    np.savez(tmp_path / "z.npz", **{f"{s}_{name}": arrays[name][rows] for s, rows in splits.items() for name in arrays})
    found = audit(tmp_path, "z.npz", "--attacks", ATTACKS)
    mse = found.set_index("attack")["mse"]
    assert mse["linear"] < mse["mean_image"]
    assert set(found["leakage_nats"]) == {""}
    assert "No leakage is told" in page(tmp_path)
