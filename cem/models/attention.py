"""Attention of torch's own layers in a form whose slopes can be taken in any direction."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def plain_attention() -> Iterator[None]:
    """Within it nn.MultiheadAttention and nn.TransformerEncoderLayer use products and a softmax.

    Their faster ways have neither forward derivatives nor second ones. What was set before is set again after it.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
