"""What does retiring save on the scale lake, and does every retired table come back bit for bit?

    python benchmarks/retirement_scale.py [FOLDER] [--scale 0.1] [--seed 7] [--tpch FOLDER]

FOLDER is what ``scale_lake.py`` builds at that scale. Its tables are copied into a lake as owned ones; the rest is that
of ``retirement_real.py``. Writes results/retirement_scale.md; leaves with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lakelet
import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import retirement_real
import scale_lake

if TYPE_CHECKING:
    from collections.abc import Sequence


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=scale_lake.SEED)
    parser.add_argument("--tpch", help="where TPC-H is, or will be")
    arguments = parser.parse_args()
    folder = Path(arguments.folder or machine.CACHE / f"scale-lake-{arguments.scale:g}")
    scale_lake.build(folder, scale=arguments.scale, seed=arguments.seed, tpch=arguments.tpch)
    machine.compile_kernels()
    with tempfile.TemporaryDirectory() as scratch, lakelet.connect(os.path.join(scratch, "lake")) as db:
        originals = {
            table.name: _one_file(sorted(table.glob("*.parquet")), Path(scratch, f"{table.name}.parquet"))
            for table in sorted((folder / "tables").iterdir())
        }
        whence = f"the scale lake, TPC-H at {arguments.scale:g} and what is derived from it"
        rng = np.random.default_rng(arguments.seed)
        sections, differences = retirement_real.measure(db, originals, rng, whence)
    facts = machine.describe(seed=arguments.seed, threads=os.cpu_count())
    print("\n\n".join(sections))
    print("reached" if not differences else f"NOT reached: {differences[:20]}")
    command = f"python benchmarks/retirement_scale.py --scale {arguments.scale:g} --seed {arguments.seed}"
    machine.write_results("retirement_scale", "Retirement on the scale lake", command, sections, facts)
    return 0 if not differences else 1


def _one_file(parts: Sequence[Path], joined: Path) -> Path:
    """A table as one Parquet file: its own, or what its parts make."""
    if len(parts) == 1:
        return parts[0]
    pq.write_table(pa.concat_tables([pq.ParquetFile(part).read() for part in parts]), joined, compression="zstd")
    return joined


if __name__ == "__main__":
    sys.exit(main())
