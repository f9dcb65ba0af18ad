"""Compare a short-context with a long-context model and say what can be said of the claim.

python scripts/compare.py            the shipped twins: offline, on a laptop, in seconds
python scripts/compare.py --help     every flag, with examples
"""

from gainlens.cli.compare import main

if __name__ == "__main__":
    main()
