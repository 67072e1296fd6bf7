"""Run all cells of a notebook with CLIP on a pretended GPU: ``notebook_on_gpu.py cuda NAME``.

A cell that fails ends it, with the cell and what went wrong, and the exit status is 1.
"""

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

import jupytext
import torch
from IPython.core.interactiveshell import InteractiveShell
from pretend_gpu import PretendGPU

from piaa_utils import backbone, pipeline, reproduce
from piaa_utils.lessons import lesson

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def main(kind: str, name: str) -> None:
    gpu, load = PretendGPU(kind), backbone.load_backbone

    def load_onto_gpu(name=None, weights=None, device=None, *more, **options):
        return gpu.move(load(name or backbone.MINI, weights, "cpu", *more, **options))

    for module in (lesson, pipeline, reproduce):
        module.load_backbone = load_onto_gpu
    reproduce.device_name = str
    torch.cuda._lazy_init = lambda: None
    cells = jupytext.read(NOTEBOOKS / "source" / f"{name}.py").cells
    os.chdir(NOTEBOOKS)
    shell = InteractiveShell.instance()
    with gpu:
        for cell in cells:
            if cell.cell_type != "code":
                continue
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                result = shell.run_cell(cell.source)
            error = result.error_before_exec or result.error_in_exec
            if error is not None:
                sys.exit(f"{cell.source}\n\n{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
