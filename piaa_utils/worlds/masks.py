"""What each patch shows, from pixel masks: for measuring, never for learning."""

import numpy as np
from PIL import Image

from piaa_utils.worlds.world import World

# Values of a mask, or of a patch, that are no class index:
BACKGROUND = -1  # no object of the class list
VOID = -2  # not known: PASCAL's unlabelled border, a picture without a mask
MIXED = -3  # of a patch: no class and not the background either covers enough of it


def patch_labels(mask: np.ndarray, grid: int, share: float = 0.5) -> np.ndarray:
    """The class of each patch: the one that covers most of it, if at least `share` of its pixels.

    mask is int [S, S], as :meth:`World.mask` gives it; grid is g, which must divide S; share is
    above 0 and at most 1 (else a ValueError). Returns int [g*g], row by row: a value of the mask,
    of two that cover as much the larger, or ``MIXED``.

    >>> mask = np.full((4, 4), -1)  # background
    >>> mask[:2, :2], mask[0, 2] = 7, 5
    >>> patch_labels(mask, grid=2).tolist(), patch_labels(mask, grid=2, share=0.9).tolist()
    ([7, -1, -1, -1], [7, -3, -1, -1])
    """
    if not 0 < share <= 1 or grid < 1:
        raise ValueError(f"share is above 0 and at most 1, grid 1 or more: got {share}, {grid}.")
    side = mask.shape[0] // grid
    if mask.shape != (side * grid, side * grid):
        raise ValueError(f"A mask of shape {mask.shape} does not divide into {grid} x {grid}.")
    patches = mask.reshape(grid, side, grid, side).swapaxes(1, 2).reshape(grid * grid, -1)
    values = np.unique(mask)[::-1].astype(np.int64)
    covered = np.stack([(patches == value).mean(axis=1) for value in values])
    return np.where(covered.max(axis=0) >= share, values[covered.argmax(axis=0)], MIXED)


def patch_truth(world: World, grid: int, image_size: int) -> np.ndarray:
    """What each patch of each picture shows, in the square in its middle that a model sees.

    Returns int [n, g*g], see :func:`patch_labels`; ``VOID`` where a picture has no mask.
    """
    out = np.full((len(world), grid * grid), VOID)
    for i in range(len(world)):
        if (mask := world.mask(i)) is None:
            continue
        side = min(mask.shape)
        top, left = ((length - side) // 2 for length in mask.shape)
        square = Image.fromarray(mask[top : top + side, left : left + side].astype(np.int32))
        seen = np.array(square.resize((image_size, image_size), Image.Resampling.NEAREST))
        out[i] = patch_labels(seen, grid)
    return out
