"""Measure coverage, false claims and power of the verdict's intervals.

python scripts/calibrate.py            writes src/gainlens/data/calibration.csv
"""

from pathlib import Path

from calibration import write_calibration

if __name__ == "__main__":
    write_calibration(Path(__file__).parents[1] / "src/gainlens/data/calibration.csv")
