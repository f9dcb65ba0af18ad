"""Measure coverage, false claims and power of the intervals, and of every contrast of a claim.

    python scripts/calibrate.py            writes src/gainlens/data/calibration.csv

It takes about twenty minutes on one core.
"""

from itertools import chain
from pathlib import Path

from calibration import calibrate, write_rates
from contrast_calibration import calibrate_contrasts

if __name__ == "__main__":
    table = Path(__file__).parents[1] / "src/gainlens/data/calibration.csv"
    write_rates(table, chain(calibrate(), calibrate_contrasts()))
