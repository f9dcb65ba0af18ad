"""Train small Llamas by a design file: which training contexts, RoPE thetas, seeds.

    python scripts/train_twins.py prepare                # pinned wheels -> tokens; 2 cores, 3 min
    python scripts/train_twins.py plan dose_response     # the jobs: tokens, arithmetic, memory
    python scripts/train_twins.py train dose_response    # every GPU there is; go on where stopped
    python scripts/train_twins.py collect dose_response  # the table into the package

Run in a checkout with gainlens installed. Designs lie in scripts/training/designs; all else lies in
training/, which git ignores.
"""

from training.cli import main

if __name__ == "__main__":
    main()
