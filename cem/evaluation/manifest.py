"""The manifest beside a result: what the attacker knew, on which images, under which settings it is scored."""

import hashlib
from collections.abc import Sequence

import numpy as np

from cem import ATTACK_NUMERICS, NUMERICS, metrics
from cem.attacks import Fitted
from cem.config import AttackSettings
from cem.evaluation.evaluator import Evaluator
from cem.evaluation.scoring import SCOPES
from cem.evaluation.victim import Victim
from cem.storage.job_records import WeightsFile
from cem.storage.manifest_records import (
    DefenseFacts,
    ImageFacts,
    KnownImages,
    Manifest,
    MetricFacts,
    ScoredImages,
    Seeds,
    SsimFacts,
)


def manifest(
    victim: Victim,
    cfg: AttackSettings,
    fitted: Fitted,
    started_from: Sequence[WeightsFile] = (),
    evaluator: Evaluator | None = None,
) -> Manifest:
    """Equal inputs give equal manifests."""
    own = victim.data.images(cfg.data)[victim.owned(cfg).numpy()]
    known = set(_digests(own))
    scored = {}
    for scope, split in SCOPES.items():
        images, labels = victim.data.images(split)[: cfg.scored], victim.data.labels(split)[: cfg.scored]
        scored[scope] = ScoredImages(
            split=split,
            images=len(images),
            sha256=_sha256(images),
            labels_sha256=_sha256(labels),
            also_owned_by_attacker=sum(digest in known for digest in _digests(images)),
        )
    epochs = fitted.ladder[-1].epochs if fitted.ladder else len(fitted.curve)
    return Manifest(
        attack=cfg.id,
        settings=cfg.sparse(),
        knowledge=KnownImages(
            split=cfg.data,
            images=len(own),
            sha256=_sha256(own),
            encoder=cfg.encoder,
            observations=cfg.observations,
            labels=cfg.labels,
            defense=True,
            seen=min(cfg.seen_images, victim.activations.count("private")),
        ),
        scored=scored,
        disjoint_from_infer=scored["infer"].also_owned_by_attacker == 0,
        defense=DefenseFacts(
            noise_std=victim.defense.channel.noise_std,
            acts_in=["training", "attack's training", "scoring"],
            settings=[one.sparse() for one in victim.defense.settings],
        ),
        images=ImageFacts(range=[0, 1], stored_as=str(own.dtype), normalisation="none"),
        metrics=MetricFacts(
            ssim=SsimFacts(window=metrics.SSIM_WINDOW, sigma=metrics.SSIM_STD, borders="reflected"),
            psnr_cap_db=metrics.PSNR_CAP_DB,
        ),
        evaluator=None if evaluator is None else evaluator.facts,
        seeds=Seeds(run=victim.seed, attack=getattr(cfg, "seed", None)),
        budget={"parameters": fitted.parameters, "epochs": epochs} | fitted.choices,
        numerics=[NUMERICS, ATTACK_NUMERICS],
        started_from=list(started_from),
    )


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _digests(images: np.ndarray) -> list[bytes]:
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
