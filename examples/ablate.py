"""Ablate with your own hook: what does the last MLP do to the last block's gain?

python examples/ablate.py                     a model that ships with the package, offline
python examples/ablate.py DIRECTORY-OR-NAME   another model
"""

import sys

import gainlens

MODEL = sys.argv[1] if len(sys.argv) > 1 else "gainlens:context512-theta10k"


def halve(mlp_out, hook):
    """Halve the MLP's write, [batch, position, d_model]; a TransformerLens hook function."""
    return mlp_out / 2


def main() -> None:
    loaded = gainlens.load(MODEL)
    prompts = gainlens.encode_for(loaded, gainlens.load_prompts("mixed"))

    def measure(name: str) -> None:
        captured = gainlens.capture(loaded.model, prompts)
        gains = gainlens.reduce_gains(gainlens.decompose(captured), "ordinary", "geomean")
        nats = gainlens.loss(loaded.model, prompts).mean()
        log_gain = gains.log_gain[-1].mean()
        print(f"{name}: log gain {log_gain:+.4f} nats, loss {nats:.4f} nats per token")

    measure("as it is        ")
    with gainlens.ablate(loaded.model, {"blocks.-1.hook_mlp_out": halve}):
        measure("last MLP halved ")
    measure("as it was       ")


if __name__ == "__main__":
    main()
