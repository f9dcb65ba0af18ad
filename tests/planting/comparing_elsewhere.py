"""The compare command as another process runs it, but for the figures: a few are drawn.

    python comparing_elsewhere.py headline,gain_curve FLAGS...

All figures take three quarters of a small comparison's time.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS.parent / "scripts" / "compare.py"
"""The command is part of a result: this one stands in it."""

if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    from planting.runs import drawing_only

    from gainlens.cli.compare import compare_command, run

    drawn, flags = sys.argv[1].split(","), sys.argv[2:]
    sys.argv = [str(SCRIPT)]
    with drawing_only(*drawn):
        sys.exit(run(compare_command, flags))
