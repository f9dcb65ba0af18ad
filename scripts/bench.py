r"""Measure time and memory of gainlens' capture beside its peers, on the same model and tokens.

    python scripts/bench.py --shape llama-3.1-8b --device cuda --tokens 2048 8192 32768 131072
    python scripts/bench.py --shape 12x1024 --device cpu --tokens 512 2048 8192
    python scripts/bench.py --shape llama-3.1-8b --device cuda --prompts 2000 \
        --batch-tokens 2048 8192 16384

The weights are untrained, because neither time nor memory depends on them.  The script writes
bench.csv (one long prompt) or throughput.csv (many short prompts), and bench.json, into
src/gainlens/data, and the figure into figures/.  New rows replace rows of the same machine and
shape.  For one prompt on a CPU each method runs in its own process to measure its peak memory, and
no method may take more than --memory-limit gigabytes.
"""

from benchmark.cli import main

if __name__ == "__main__":
    main()
