"""What scripts/bench.py runs: shapes of models, methods, and how each is measured."""
