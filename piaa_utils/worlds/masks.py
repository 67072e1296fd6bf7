"""What each patch shows, from pixel masks: for measuring, never for learning."""

from __future__ import annotations

import numpy as np
from PIL import Image

from piaa_utils.worlds.world import World

# Values of a mask, or of a patch, that are no class index:
BACKGROUND = -1  # no object of the class list
VOID = -2  # not known: PASCAL's unlabelled border, a picture without a mask
MIXED = -3  # of a patch: no class and not the background either covers enough of it


def patch_labels(mask: np.ndarray, grid: int, share: float = 0.5) -> np.ndarray:
    """The class of each patch: the one that covers most of it, if at least `share` of its pixels.

    mask : int [S, S], class index of each pixel, as :meth:`World.mask` gives it.
    grid : g, patches along a side; S must be a multiple of it.
    share : least share of the patch's pixels, above 0 and at most 1.

    Returns int [g*g], row by row: a value of the mask, or ``MIXED``. Of two values that cover as
    much, the larger, so that an object wins over the background.

    Raises ValueError: if the mask is no square of g x g patches, or `share` is out of range.

    >>> mask = np.full((4, 4), -1)  # background
    >>> mask[:2, :2], mask[0, 2] = 7, 5
    >>> patch_labels(mask, grid=2).tolist(), patch_labels(mask, grid=2, share=0.9).tolist()
    ([7, -1, -1, -1], [7, -3, -1, -1])
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is a share above 0 and at most 1: got {share}.")
    side = mask.shape[0] // grid
    if mask.shape != (side * grid, side * grid):
        raise ValueError(f"A mask of shape {mask.shape} does not divide into {grid} x {grid}.")
    patches = mask.reshape(grid, side, grid, side).swapaxes(1, 2).reshape(grid * grid, -1)
    values = np.unique(mask)[::-1].astype(np.int64)
    covered = np.stack([(patches == value).mean(axis=1) for value in values])
    return np.where(covered.max(axis=0) >= share, values[covered.argmax(axis=0)], MIXED)


def patch_truth(world: World, grid: int, image_size: int) -> np.ndarray:
    """What each patch of each picture shows, in the square in its middle that a model sees.

    grid, image_size : g and S of the model; S a multiple of g.

    Returns int [n, g*g], see :func:`patch_labels`; ``VOID`` where a picture has no mask.
    """
    out = np.full((len(world), grid * grid), VOID)
    for i in range(len(world)):
        if (mask := world.mask(i)) is not None:
            out[i] = patch_labels(_seen(mask, image_size), grid)
    return out


def _seen(mask: np.ndarray, size: int) -> np.ndarray:
    """The square in the middle of a mask, [size, size]."""
    height, width = mask.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    mask = mask[top : top + side, left : left + side]
    if side == size:
        return mask
    return np.array(Image.fromarray(mask.astype(np.int32)).resize((size, size), 0))
