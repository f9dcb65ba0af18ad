"""Time and memory of gainlens' capture beside its peers: same model, tokens and run.

    python scripts/bench.py --shape llama-3.1-8b --device cuda --tokens 2048 8192 32768 131072
    python scripts/bench.py --shape 12x1024 --device cpu --tokens 512 2048 8192

Weights are untrained: neither time nor memory depends on them.  Writes bench.csv and bench.json
into src/gainlens/data, where new rows replace those of the same machine and shape, and the figure
into figures/.  On a CPU, memory is the peak of a process of its own for each method, and no method
may take more than --memory-limit gigabytes.
"""

from benchmark.cli import main

if __name__ == "__main__":
    main()
