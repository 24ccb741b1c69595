"""What to do with arrays that are no images or labels yet, in sentences for errors."""

import math

import numpy as np


def label_advice(labels: np.ndarray) -> str:
    """How to make whole numbers of what was found."""
    if labels.dtype.kind in "USO":
        return "From names: classes, y = numpy.unique(names, return_inverse=True)."
    if labels.dtype.kind == "V":
        return "Store whole numbers, one for each image."
    if labels.ndim == 2 and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all():
        return "From one-hot labels, use y.argmax(1)."
    if labels.ndim == 2:
        return "Where an image has several labels, choose the one that is to be learned: y[:, column]."
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.rint(labels)):
        return "Some are no whole numbers: correct these, then use y.astype(numpy.int64)."
    return "Use y.astype(numpy.int64)."


def image_advice(dtype: np.dtype, shape: tuple[int, ...], smallest_side: int) -> str:
    """How to make images of what was found, as far as its dtype and shape say it."""
    said = []
    values = math.prod(shape[1:])
    grey, colour = math.isqrt(values), math.isqrt(values // 3)
    flat = len(shape) < 3 or max(shape[1:]) == values
    sides = [size for size in shape[1:] if size > 1]
    side = math.isqrt(max(sides, default=0))
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        said.append("Channels come first: use x.transpose(0, 2, 3, 1).")
    elif flat and grey >= smallest_side and grey**2 == values:
        said.append(f"Flattened grey images: use x.reshape(-1, {grey}, {grey}).")
    elif flat and colour >= smallest_side and 3 * colour**2 == values:
        said.append(
            f"Flattened colour images: use x.reshape(-1, {colour}, {colour}, 3) or, with channels first, "
            f"x.reshape(-1, 3, {colour}, {colour}).transpose(0, 2, 3, 1)."
        )
    elif len(sides) == 2 and 3 in sides and side >= smallest_side and side**2 == max(sides):
        last = sides[1] == 3
        new = f"x.reshape(-1, {side}, {side}, 3)" if last else f"x.reshape(-1, 3, {side}, {side}).transpose(0, 2, 3, 1)"
        said.append(f"Flattened colour images: use {new}.")
    elif len(shape) == 4 and shape[3] in (2, 4):
        said.append(
            f"The last channel is transparency: blend it with a background, or leave it out: x[..., :{shape[3] - 1}]."
        )
    if np.issubdtype(dtype, np.floating):
        said.append(
            "From values 0 to 1, use numpy.rint(255 * x).astype(numpy.uint8); from −1 to 1, 127.5 * (x + 1) in place "
            "of 255 * x; from 0 to 255, x."
        )
    elif dtype == np.bool_:
        said.append("From black and white, use 255 * x.astype(numpy.uint8).")
    elif dtype != np.uint8 and np.issubdtype(dtype, np.integer):
        said.append("Values 0 to 255 become bytes with x.astype(numpy.uint8); others must be rescaled first.")
    return "".join(f" {sentence}" for sentence in said)
