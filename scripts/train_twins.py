"""Train small Llamas by a design file: which training contexts, RoPE thetas, seeds.

    python scripts/train_twins.py prepare                # pinned wheels -> tokens; 2 cores, 3 min
    python scripts/train_twins.py plan dose_response     # the jobs: tokens, arithmetic, memory
    python scripts/train_twins.py train dose_response    # every GPU there is; go on where stopped
    python scripts/train_twins.py collect dose_response  # the table into the package

A design of many GPU-hours need not be trained in one piece: with `--finished` and the table's
record (src/gainlens/data/dose_response.json), `train` leaves out the jobs that the table holds, and
`collect` adds the new ones to it.

Run in a checkout with gainlens installed. Designs lie in scripts/training/designs; all else lies in
training/, which git ignores.
"""

from training.cli import main

if __name__ == "__main__":
    main()
