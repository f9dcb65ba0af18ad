"""TODO: planting/result_files.py."""

import math

from gainlens.notebook.statistics import notebook_gains

LLAMA2 = {
    "norms": [
        0.8342146277427673, 2.572565793991089, 299.2936096191406, 300.9410705566406,
        381.1778259277344, 128.1094207763672, 118.18384552001953,
    ],
    "w_u": (32000, 197.87191772460938, 44.400177001953125, 1.0958846807479858),
    "rope": (10000.0, None, 4096),
}  # fmt: skip
LLAMA31 = {
    "norms": [
        0.5586393475532532, 2.2254865169525146, 46.4610710144043, 47.02727127075195,
        84.8061752319336, 89.9202651977539, 137.86570739746094,
    ],
    "w_u": (128256, 331.49127197265625, 94.60694885253906, 0.916771411895752),
    "rope": (500000.0, {"rope_type": "llama3", "factor": 8.0}, 131072),
}  # fmt: skip
"""Figures of the published run on the real checkpoints (buk81/uniformity-asymmetry@e3c7f94, MIT,
paper3/Results): the norms around the writing block, the erasing block and the final norm; blocks 3
to 29 are left out, so that their gains multiply into one."""


def model_of(facts: dict) -> dict:
    vocab, frobenius, spectral, row = facts["w_u"]
    theta, scaling, context = facts["rope"]
    gains = list(notebook_gains(facts["norms"]))
    return {
        "num_layers": len(gains),
        "residual": {
            "norms": list(facts["norms"]),
            "gains": gains,
            "last_gain": gains[-1],
            "cumulative_energy": math.prod(gains),
        },
        "w_u": {
            "shape": [vocab, 4096], "vocab_size": vocab, "hidden_dim": 4096,
            "frobenius_norm": frobenius, "spectral_norm": spectral, "mean_row_norm": row,
        },
        "rope": {"rope_theta": theta, "rope_scaling": scaling, "max_position": context},
    }  # fmt: skip


def document() -> dict:
    """The published run, shortened: a valid file of the notebook."""
    return {
        "experiment": "test",
        "models": {"llama2-7b": model_of(LLAMA2), "llama3.1-8b": model_of(LLAMA31)},
        "hypothesis_test": {
            "llama2_expands": False, "llama31_expands": True, "theta_ratio": 50.0,
            "gain_ratio": 1.6619640486201945, "wu_ratio": 2.1307786419044543,
            "verdict": "INVERTED",
        },
    }  # fmt: skip


def replace(tree, place, value) -> None:
    for key in place[:-1]:
        tree = tree[key]
    tree[place[-1]] = value
