"""Aggregate and report of a large study whose results are made up: CPU seconds, memory, size of the page.

2,000 runs (two surrogates, 100 noise levels, ten seeds) and their ten references, three attacks on each, 1,000 images
a scope, of pixels drawn at random, which no compression makes smaller. Every file is written by the project's own
storage. Exit code 1 beyond 90 s, 3 GB or 20 MB; for 40 runs (`--noises 2`) and their references beyond 10 s or 6 MB.
Usage: python benchmarks/report.py [--noises 100] [--folder DIR]   (DIR is kept, and used again if it is there)
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from planning import measure, study

from cem import ATTACK_NUMERICS, NUMERICS
from cem.config import AttackSettings, Run, load_study
from cem.planning.plan import Plan
from cem.storage import job_records, manifest_records, records
from cem.storage.files import whole_or_absent, write_text
from cem.storage.hdf5 import SPLITS, write_file

IMAGES, KEPT, CLASSES, CHANNELS, SIDE, EPOCHS = 1000, 16, 10, 3, 32, 20
ALLOWED_S, ALLOWED_MB, ALLOWED_PAGE_MB = 90, 3000, 20
SMALL, SMALL_S, SMALL_PAGE_MB = 40, 10, 6  # of a study of so many runs and their references
STAGES = {
    "aggregate": "from cem.report.results import aggregate\n"
    "aggregate(plan, plan.folder / 'results.parquet', plan.folder / 'results.csv', plan.folder / 'runs.csv')",
    "report": "from cem.report.page import write_report\n"
    "write_report(plan, plan.folder / 'results.parquet', plan.report, plan.folder / 'figures', plan.folder / 'tables')",
}
SETUP = "import sys\nfrom cem.config import load_study\nfrom cem.planning.plan import Plan\n"
SETUP += "plan = Plan(load_study(sys.argv[1]), sys.argv[2])\n"


def write_results(plan: Plan) -> None:
    """All that the report reads. Errors grow with σ, and more so under the surrogate; accuracy falls with σ."""
    generator = np.random.default_rng(0)
    for dataset in plan.datasets.values():
        attrs = {"description": "made up", "class_names": [str(n) for n in range(CLASSES)], "source_sha256": "0" * 64}
        with write_file(plan.data(dataset), "dataset", attrs=attrs) as file:
            for split in SPLITS:
                file[f"{split}/images"] = generator.integers(0, 256, (IMAGES, CHANNELS, SIDE, SIDE), np.uint8)
                file[f"{split}/labels"] = np.arange(IMAGES) % CLASSES
    images = generator.integers(0, 256, (KEPT, CHANNELS, SIDE, SIDE), np.uint8)
    smashed = generator.normal(size=(IMAGES, 4, 7, 7)).astype(np.float16)
    for run in plan.runs.values():
        _write_run(plan, run, generator, smashed)
        for attack in plan.attacks(run):
            _write_attack(plan, run, attack, generator, images)


def _write_run(plan: Plan, run: Run, generator: np.random.Generator, smashed: np.ndarray) -> None:
    folder, device = plan.run(run), "cpu"
    attempt = job_records.Attempt(
        node="n", device=device, started="2026-11-27T08:53:31+00:00", seconds=60.0, cpu_seconds=60.0, ended="done"
    )
    record = job_records.TrainRecord(
        run=run.id, accuracy_test=0.97 - 0.2 * run.noise_std + 0.002 * generator.normal(), accuracy_val=0.97,
        best_epoch=EPOCHS, epochs=EPOCHS, seconds=60.0, warmup_seconds=10.0, peak_memory_mb=300.0, device=device,
        parameters={"encoder": 1000, "classifier": 100_000, "surrogate": 0}, threads=1, versions={"torch": "2"},
        numerics=NUMERICS, attempts=[attempt], lost_seconds=0.0,
    )  # fmt: skip
    records.write_record(folder / "train.json", record)
    epochs = np.arange(1, EPOCHS + 1)
    history = pd.DataFrame(
        {"epoch": epochs, "phase": "train", "cross_entropy": 1 / epochs, "val_accuracy": 1 - 0.3 / epochs}
    )
    history["leakage_nats"], history["probe_leakage_nats"] = 300 + 1 / epochs, 250 + 1 / epochs
    history["weight"], history["client_clipped"], history["client_clip_factor"] = run.surrogate.weight, 0.0, 1.0
    write_text(folder / "history.csv", history.to_csv(index=False))
    leakage = {"leakage_nats": 300.0 if run.noise_std else float("inf"), "leakage_nats_sem": 1.5}
    with write_file(plan.leakage(run), "mixture", attrs=leakage):
        pass
    with write_file(folder / "activations.h5", "activations") as file:
        file["test/smashed"], file["test/labels"] = smashed, np.arange(IMAGES) % CLASSES


def _write_attack(
    plan: Plan, run: Run, attack: AttackSettings, generator: np.random.Generator, images: np.ndarray
) -> None:
    folder = plan.attack(run, attack.id)
    strength = {"mean_image": 0.0, "linear": 0.6, "decoder": 0.8}[attack.member]
    hindered = 0.0 if run.noise_std == 0 else 0.3 + 0.5 * run.noise_std + 0.1 * run.surrogate.weight
    level = 0.07 * (1 - strength * max(0.0, 1 - hindered))
    table = pd.DataFrame({"scope": np.repeat(["train", "infer"], IMAGES), "index": np.tile(np.arange(IMAGES), 2)})
    table["label"] = table["index"] % CLASSES
    mse = (level * generator.uniform(0.5, 1.5, 2 * IMAGES)).astype(np.float32)
    table["mse"], table["psnr_db"], table["ssim"] = mse, -10 * np.log10(mse), (1 - 10 * mse).clip(0)
    table["recognised"], table["identified"] = mse < 0.05, mse < 0.04
    table["recognised_original"], table["embedding_similarity"] = True, (1 - 15 * mse).clip(0)
    table["mse_mean_image"], table["mse_class_mean"] = np.float32(0.07), np.float32(0.06)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_or_absent(folder / "metrics.parquet") as temporary:
        table.to_parquet(temporary, index=False)
    with write_file(folder / "reconstructions.h5", "reconstructions", attrs={"attack": attack.id}) as file:
        for place in ("train", "train/worst", "infer", "infer/worst"):
            file[f"{place}/index"], file[f"{place}/images"] = np.arange(KEPT), images
            file[f"{place}/reconstructions"] = images // 2
    epochs = range(1, EPOCHS + 1)
    curve = [{"epoch": epoch, "train_mse": level + 0.01 / epoch, "val_mse": level + 0.02 / epoch} for epoch in epochs]
    numerics = [NUMERICS, ATTACK_NUMERICS]
    record = job_records.AttackRecord(
        attack=attack.id, kind=attack.member, settings=attack.sparse(), parameters=10_000 if attack.trained else 0,
        knowledge=job_records.AttackKnowledge(data=attack.data, images=IMAGES, label=attack.knowledge_label),
        curve=curve if attack.trained else [], converged=True if attack.trained else None, choices={}, failure="",
        fit_seconds=5.0, score_seconds=1.0, peak_memory_mb=300.0, numerics=numerics, torch="2", device="cpu", threads=1,
        attempts=[], lost_seconds=0.0,
    )  # fmt: skip
    records.write_record(folder / "attack.json", record)
    known = manifest_records.KnownImages(
        split=attack.data, images=IMAGES, sha256="0" * 64, encoder=attack.encoder, observations=attack.observations,
        labels=attack.labels, defense=True,
    )  # fmt: skip
    scored = {
        scope: manifest_records.ScoredImages(
            split=split, images=IMAGES, sha256="0" * 64, labels_sha256="0" * 64, also_owned_by_attacker=0
        )
        for scope, split in (("train", "private"), ("infer", "test"))
    }
    manifest = manifest_records.Manifest(
        attack=attack.id, settings=attack.sparse(), knowledge=known, scored=scored, disjoint_from_infer=True,
        defense=manifest_records.DefenseFacts(noise_std=run.noise_std, acts_in=[]), budget={}, numerics=numerics,
        images=manifest_records.ImageFacts(range=[0, 1], stored_as="uint8", normalisation="none"),
        metrics=manifest_records.MetricFacts(
            ssim=manifest_records.SsimFacts(window=11, sigma=1.5, borders="reflected"), psnr_cap_db=100.0
        ),
        seeds=manifest_records.Seeds(run=run.seed, attack=None),
    )  # fmt: skip
    records.write_record(folder / "manifest.json", manifest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--noises", type=int, default=100, help="noise levels; 20 runs for each")
    parser.add_argument("--folder", type=Path, help="where the results are made, and kept")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (args.folder or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "study.yaml"
        file.write_text(yaml.safe_dump(study(args.noises)))
        plan = Plan(load_study(file), folder / "results")
        if not (folder / "written").exists():
            write_results(plan)
            (folder / "written").touch()
        print(f"| stage of {len(plan.runs)} runs | CPU s | memory, MB |\n|---|---|---|", flush=True)
        seconds, memory = 0.0, 0.0
        for stage, code in STAGES.items():
            taken, used = measure([sys.executable, "-c", SETUP + code, str(file), str(folder / "results")], folder)
            print(f"| {stage} | {taken:.1f} | {used:.0f} |", flush=True)
            seconds, memory = seconds + taken, max(memory, used)
        page = plan.report.stat().st_size / 1e6
        print(f"\nTogether {seconds:.1f} s; the page has {page:.1f} MB.")
        small = len(plan.asked) <= SMALL
    most_s, most_mb = (SMALL_S, SMALL_PAGE_MB) if small else (ALLOWED_S, ALLOWED_PAGE_MB)
    return 0 if seconds <= most_s and memory <= ALLOWED_MB and page <= most_mb else 1


if __name__ == "__main__":
    sys.exit(main())
