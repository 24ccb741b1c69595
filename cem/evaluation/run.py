"""The job of the rules attack and baseline_attacks: fit attacks, score them, write what was found."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from cem import ATTACK_NUMERICS, NUMERICS
from cem.attacks import Attack, Fitted, make_attack
from cem.attacks.weights import HasWeights, save_weights
from cem.config import AttackSettings, MetricSettings, Run
from cem.defenses import defense_of
from cem.evaluation.evaluator import Evaluator, load_evaluator
from cem.evaluation.manifest import manifest
from cem.evaluation.scoring import SCOPES, Metric, Scoring, pair_metrics
from cem.evaluation.tuning import as_tuned
from cem.evaluation.victim import Victim, load_network, sends_a_constant
from cem.jobs.interruption import resumable
from cem.jobs.process import device_name, peak_memory_mb, set_up_process
from cem.jobs.state import CountingStore, StateStore, state_folder
from cem.jobs.work import name_work
from cem.storage.files import sha256, whole_or_absent
from cem.storage.hdf5 import open_activations, open_dataset, write_file
from cem.storage.job_records import AttackKnowledge, AttackRecord, WeightsFile
from cem.storage.manifest_records import Manifest
from cem.storage.records import write_record
from cem.storage.weights import NAME


def attack_run(
    run: Run,
    attacks: Sequence[AttackSettings],
    *,
    activations: Path,
    data: Path,
    model: Path,
    folder: Path,
    num_images: int,
    evaluator: Path | None = None,
    tuned: Path | None = None,
    metrics: Sequence[MetricSettings] = (),
    results: Path = Path("results"),
) -> None:
    """Fit and score attacks on a trained run: a job's work. See `run_attacks`.

    A learned attack keeps the state of its fit in `results/.state`, and goes on from there when it was interrupted.
    evaluator: the data set's; absent: nothing judges what the reconstructions show.
    tuned: attack.json of the same attack on the undefended reference, which says what is left open, such as the rate.
    """
    device = set_up_process(run.training.threads)
    if tuned is not None:
        attacks = [as_tuned(cfg, tuned) if cfg.tunes_on_reference else cfg for cfg in attacks]

    with open_dataset(data) as images, open_activations(activations) as smashed:
        smashed.check_source("model", model)
        network = load_network(model, run, images, device) if run.model.has_network else None
        defense = defense_of(run, smashed, device)
        victim = Victim(images, smashed, defense, network, run.seed, device)
        files = {"activations": activations, "data": data, "model": model}
        judge = None
        if evaluator is not None:
            judge = load_evaluator(evaluator, images, device)
            files["evaluator"] = evaluator
        inputs = {name: sha256(path) for name, path in files.items()}

        def state_of(cfg: AttackSettings) -> Path:
            settings = {"attack": cfg.sparse(), "run": run.sparse(), "images": num_images, "numerics": ATTACK_NUMERICS}
            settings |= {"metrics": [metric.sparse() for metric in metrics]}
            return state_folder(results, settings, inputs | {one.setting: one.sha256 for one in files_of(cfg)})

        run_attacks(attacks, victim, folder, num_images=num_images, evaluator=judge, metrics=metrics, state_of=state_of)


def files_of(cfg: AttackSettings) -> list[WeightsFile]:
    """The files of weights that an attack starts from, as they are now. Raises StoreError where one is absent."""
    return [WeightsFile(setting=one.setting, path=one.path, sha256=sha256(one.path)) for one in cfg.starts]


def run_attacks(
    attacks: Sequence[AttackSettings],
    victim: Victim,
    folder: str | Path,
    *,
    num_images: int,
    evaluator: Evaluator | None = None,
    metrics: Sequence[MetricSettings] = (),
    state_of: Callable[[AttackSettings], Path] | None = None,
) -> None:
    """Fit and score each attack; its results go to `folder/<attack.id>/`.

    * `metrics.parquet`: one row per image: scope (train: private images, infer: test images), index in the split,
      label, a column per metric, what the evaluator says, whether it is identified, and the errors of the mean image
      and of the class's mean on the same image;
    * `reconstructions.h5`: index, images and reconstructions of the first `num_images` of each scope, and of those the
      attack came nearest to;
    * `attack.json`: settings, knowledge, cost, training curve, convergence, versions;
    * `manifest.json`: what the number rests on;
    * `weights.safetensors`: the networks that were fitted, for others to start from; absent where there are none, or
      the fit failed.

    state_of: folder for the state of a learned attack; absent, nothing is kept of one that is interrupted.

    An encoder that sends a constant is attacked like any other, and the records say so.

    Raises StoreError unless the activations were made from this data set, EvaluationError for activations that are not
    finite, AttackError when a fit cannot be made, MetricError when LPIPS's weights are not what they ought to be,
    WeightsError when those that an attack starts from are not.
    """
    victim.activations.check_source("data", victim.data.path)
    splits = sorted({*SCOPES.values(), *(cfg.data for cfg in attacks)})
    constant = sends_a_constant(victim.activations, splits)
    pair = pair_metrics(min(victim.data.image_shape[1:]), metrics, victim.device)
    device = device_name(victim.device)
    for cfg in attacks:
        place = (Path(folder) / cfg.id, num_images, pair, evaluator)
        if state_of is None or not cfg.trained:
            # Of a job that several attacks share, each counts its own part.
            _run_attack(cfg, victim, *place, CountingStore(device, torch.cuda.device_count()), constant)
        else:
            with resumable(state_of(cfg), device) as store:
                name_work(state_of(cfg), place[0])
                _run_attack(cfg, victim, *place, store, constant)


def _run_attack(
    cfg: AttackSettings,
    victim: Victim,
    folder: Path,
    num_images: int,
    pair: Mapping[str, Metric],
    evaluator: Evaluator | None,
    store: StateStore,
    constant: bool,
) -> None:
    if victim.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(victim.device)
    attack, started_from = make_attack(cfg, store.part("fit")), files_of(cfg)
    started = time.perf_counter()
    fitted = attack.fit(victim.knowledge(cfg))
    fit_seconds = time.perf_counter() - started
    scoring = Scoring(victim, cfg, num_images, store.part("scoring"), pair, evaluator)
    scoring.run(attack)
    score_seconds = time.perf_counter() - started - fit_seconds
    with whole_or_absent(folder / "metrics.parquet") as temporary:
        scoring.table().to_parquet(temporary, index=False)
    sources = {"data": victim.data.path, "activations": victim.activations.path}
    with write_file(folder / "reconstructions.h5", "reconstructions", sources, {"attack": cfg.id}) as file:
        for name, values in scoring.images().items():
            file[name] = values
    rests_on = manifest(victim, cfg, fitted, started_from, evaluator)
    kept = _keep_weights(folder / NAME, attack, fitted, rests_on)
    write_record(folder / "manifest.json", rests_on)
    record = _record(cfg, victim, fitted, started_from, kept, fit_seconds, score_seconds, store, constant)
    write_record(folder / "attack.json", record)


def _keep_weights(path: Path, attack: Attack, fitted: Fitted, rests_on: Manifest) -> str | None:
    """Write the fitted networks, and give the file's SHA-256; None where there are none, and then there is no file."""
    path.unlink(missing_ok=True)
    if fitted.failure or not isinstance(attack, HasWeights):
        return None
    save_weights(path, attack.weights(), fitted, rests_on.knowledge, [one.sha256 for one in rests_on.started_from])
    return sha256(path)


def _record(
    cfg: AttackSettings,
    victim: Victim,
    fitted: Fitted,
    started_from: list[WeightsFile],
    kept: str | None,
    fit_seconds: float,
    score_seconds: float,
    store: StateStore,
    constant: bool,
) -> AttackRecord:
    """What a finished attack says of itself. Closes the attempts."""
    attempts = store.end()
    known = [cfg.knowledge_label, *(f"started from weights {one.sha256[:8]}" for one in started_from)]
    return AttackRecord(
        attack=cfg.id,
        kind=cfg.member,
        settings=cfg.sparse(),
        knowledge=AttackKnowledge(data=cfg.data, images=len(victim.owned(cfg)), label=", ".join(known)),
        **asdict(fitted),
        fit_seconds=fit_seconds + store.earlier_seconds,
        score_seconds=score_seconds,
        peak_memory_mb=peak_memory_mb(victim.device),
        numerics=[NUMERICS, ATTACK_NUMERICS],
        torch=str(torch.__version__),
        device=device_name(victim.device),
        threads=torch.get_num_threads(),
        attempts=attempts,
        lost_seconds=sum(attempt.lost_seconds for attempt in attempts),
        constant=constant,
        started_from=started_from,
        weights_sha256=kept,
    )
