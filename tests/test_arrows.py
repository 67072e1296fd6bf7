"""Imports go one way: a file reads only what stands above it (see the floors below)."""

import ast
from pathlib import Path

import pytest

import piaa_utils

PACKAGE = Path(piaa_utils.__file__).parent
FLOORS = """settings files
checkpoint vocabulary backbone encoders selection gda classifier aggregation
images worlds
walk pipeline metrics plots tags
ablation reproduce contact_sheet predict scaling download __main__
lessons""".splitlines()
ORDER = " ".join(FLOORS).split()
ONLY = {"matplotlib": {"plots", "contact_sheet", "lessons"}, "dask": {"scaling"}}
NOT_BELOW = {"PIL", "tqdm", "matplotlib", "seaborn", "pandas"}  # no picture, plot or progress bar


def files():
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows(path):
    here = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            own = node.module == "piaa_utils"
            names = [f"piaa_utils.{a.name}" for a in node.names] if own else [node.module]
        for module, _, rest in (name.partition(".") for name in names):
            other = rest.partition(".")[0] or ORDER[-2]  # the package itself
            if module == "piaa_utils" and other != here and not other.startswith("__version"):
                assert ORDER.index(other) < ORDER.index(here), f"{here} imports {other}"
            assert here in ONLY.get(module, {here}), f"{here} imports {module}"
            if here in " ".join(FLOORS[:2]).split():
                assert module not in NOT_BELOW, f"{here} imports {module}"
