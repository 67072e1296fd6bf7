"""Bring piaa_utils/registry.txt in step with data/: run this after either folder was made anew."""

from pathlib import Path

from piaa_utils.download import EMBEDDED, REGISTRY, checksum

DATA = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    lines = REGISTRY.read_text().splitlines()
    kept = [line for line in lines if line.partition(" ")[0] not in EMBEDDED]
    kept += [f"{name} {checksum(DATA / name)}" for name in EMBEDDED]
    REGISTRY.write_text("\n".join(kept) + "\n")
