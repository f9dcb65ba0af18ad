"""Result files with known answers: the published run, and a made-up file of every other shape.

The made-up files hold the keys of buk81/uniformity-asymmetry@e3c7f94, paper3/Results, and our own
numbers.
"""

import math
from typing import Any

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


PROMPTS = ("a", "b", "c", "d")
BASE = (1.2, 1.3, 1.1, 1.4)
INSTRUCT = (0.6, 0.7, 0.5, 0.8)
"""Last-block gains of two made-up models on four prompts: one expands, one contracts."""


def _rows(model: str, gains: tuple[float, ...], **more: Any) -> list[dict[str, Any]]:
    return [
        {"Model": model, "Prompt": prompt, "Last_Gain": gain, **more}
        for prompt, gain in zip(PROMPTS, gains, strict=True)
    ]


def _hidden_states(mean: float, normed: float, **more: Any) -> dict[str, Any]:
    return {
        "model": "made/up-1b", "n_layers": 3, "all_layer_gains": [4.0, mean, normed],
        "gain_with_ln_mean": normed, "is_dampening": mean < 1, **more,
    }  # fmt: skip


NEIGHBOURS: dict[str, dict[str, Any]] = {
    "rows of prompts": {
        "verdict": "THE SAME",
        "hypothesis_results": [{"Family": "up", "RLHF_Effect": "NEUTRAL"}],
        "all_results": _rows("Up-Base", BASE, Family="up") + _rows("Up-IT", INSTRUCT, Family="up"),
    },
    "gains of prompts": {
        "model": "made/up-1b",
        "prompts": {"1_Fact": {"text": "one"}, "2_Fox": {"text": "two"}, "3": {"text": "three"}},
        "results": {
            key: {"gains": [9.0, 2.0, gain], "last_gain": gain, "entropy": 1.0}
            for key, gain in (("1_Fact", 0.5), ("2_Fox", 0.8), ("3", 0.6))
        },
    },
    "norms of models": {
        "models": {
            "up-1b": {
                "norms": [1.0, 8.0, 16.0, 4.0], "gains": [8.0, 2.0, 0.25], "last_gain": 0.25,
                "last_expands": False,
            },
            "_hypothesis_test": {"verdict": "REJECTED"},
        }
    },
    "hidden states without final norm": {
        "methodology": {"correct_metric": "hidden_states[-2] / hidden_states[-3]"},
        "models": [
            _hidden_states(
                0.95, 3.0, residual_gain_mean=0.95, residual_gain_all=[0.9, 0.95, 1.0, 0.95]
            )
        ],
        "h25_verdict": "VALIDATED",
    },
    "hidden states with final norm": {
        "methodology": "hidden_states[-1] / hidden_states[-2], last token, L2 norm",
        "results": {
            "up-1b": {
                "n_layers": 3, "last_layer_gain_mean": 0.3, "all_layer_gains": [4.0, 1.1, 0.3],
                "per_prompt_gains": {"one": 0.2, "two": 0.3, "three": 0.4}, "is_dampening": "True",
            }
        },
    },
    "gains of sublayers": {
        "models": [{"model": "up-1b", "attn_gains": [0.5, 0.2], "mlp_gains": [0.4, 3.0]}]
    },
    "objects of sublayers": {
        "model": "made/up-1b", "attention": {"gains": [0.5, 0.2]}, "mlp": {"gains": [0.4, 3.0]},
        "combined": {"gains": [0.2, 0.6]},
    },
    "ratios beside heads": {
        "models": {
            "up-1b": {
                "layers": [{"residual_ratio": 9.0}, {"residual_ratio": 0.8}],
                "last_layer_residual_ratio": 0.8,
            }
        }
    },
    "copied gains": {
        "results": [{"model": "made/up-1b", "known_gain": 0.95, "n_layers": 3, "behavior": "LOW"}]
    },
    "matrices": {
        "unembedding_analysis": {
            "up-1b": {
                "unembedding": {
                    "shape": [400, 100], "spectral_norm": 60.0, "frobenius_norm": 200.0,
                    "mean_row_norm": 8.0, "std_row_norm": 6.0,
                }
            }
        }
    },
    "attention weights": {
        "results": [
            {
                "model": "up-1b", "W_V_spectral_norm": [2.0, 3.0], "W_V_frobenius_norm": [6.0, 9.0],
                "W_O_spectral_norm": [1.0, None],
            }
        ]
    },
    "value norms": {"model": "up-1b", "restriction_maps": {"W_V_op_norms": [2.0, math.nan]}},
    "mean value norms": {
        "W_V_analysis": {"up": {"model": "up", "mean_spectral": 1.6, "mean_frobenius": 16.0}}
    },
    "ranks of states": {
        "model": "made/up-1b", "effective_rank": [9.0, 4.0], "intrinsic_dim_ratio": [0.1, 0.2],
    },
}  # fmt: skip
"""A file of each shape of notebook.neighbours, under the shape's name."""
