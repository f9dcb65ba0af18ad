"""Train the twins: small Llamas, RoPE theta 1e4 / 5e5 x training context 512 / 4,096.

    python scripts/train_twins.py prepare               # pinned wheels -> tokens; 2 cores, 3 min
    python scripts/train_twins.py pilot --context 512   # a learning rate, and tokens a second
    python scripts/train_twins.py train --context 512   # 2 cells, 2 controls, 3 seeds; H200, 8 min
    python scripts/train_twins.py train --context 4096  # 2 cells, 3 seeds; H200, 7 min
    python scripts/train_twins.py ship                  # seed 0 and the tables into the package

Run in a checkout with gainlens installed. Everything lies in training/, which git ignores; `train`
goes on where it was stopped.
"""

from training.cli import main

if __name__ == "__main__":
    main()
