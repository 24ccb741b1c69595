"""The attacker who cannot ask the encoder: it trains one whose z look the same, and inverts that."""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from cem.attacks.base import Fitted, Knowledge, Rows
from cem.attacks.decoder import DecoderAttack
from cem.attacks.shadow_encoder import ShadowEncoder
from cem.config import ShadowModel
from cem.jobs.state import StateStore
from cem.types import Images, Labels, Smashed


class ShadowModelAttack:
    """A decoder fitted to an encoder of the attacker's own, and turned on the real z.

    The attacker is the server: it holds the classifier, knows the encoder's design and the defence, has seen z of the
    defender's images (never the images), and owns images and their classes. An encoder that makes the server's
    classifier right about its images, and whose z look like those seen, is taken for the client's. A fit that is
    interrupted, in either half, goes on from its last save and ends with the same bits (CPU). Where the encoder
    diverges, the decoder is fitted to the last weights before that, and the fit counts as failed.
    """

    def __init__(self, cfg: ShadowModel, store: StateStore | None = None) -> None:
        store = store or StateStore()
        self.cfg, self.encoder_store = cfg, store.part("encoder")
        self.decoder = DecoderAttack(cfg.decoder, store.part("decoder"), name=f"{cfg.id}, decoder")

    def fit(self, knowledge: Knowledge) -> Fitted:
        encoder = ShadowEncoder(self.cfg, knowledge)
        encoder.fit(self.encoder_store)

        def observe(rows: Rows, generator: torch.Generator) -> Smashed:
            return encoder.send(knowledge.targets(rows), generator)

        fitted = self.decoder.fit(replace(knowledge, observe=observe))
        choices = {"encoder_accuracy": encoder.accuracy, "told_apart": encoder.told_apart}
        failures = [f"its own encoder: {encoder.failure}"] if encoder.failure else []
        failures += [f"its decoder: {fitted.failure}"] if fitted.failure else []
        return replace(
            fitted,
            parameters=fitted.parameters + encoder.parameters,
            held_out_mse=None,  # its decoder's is on z of its own encoder, and says nothing of the client's
            choices=fitted.choices | choices,
            failure="; ".join(failures),
        )

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        return self.decoder.reconstruct(smashed)
