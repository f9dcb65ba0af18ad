"""Write docs/models.md: what happens to every causal class of transformers, on each back end.

python tools/models.py               every class, 7 minutes on one core
python tools/models.py Llama OPT     these alone, printed

Each class is built small with random weights, in a process of its own.  The error is against the
plain model in float64: the largest difference of a block's log gain, from Hugging Face's own
hidden states.
"""

import contextlib
import copy
import multiprocessing
import os
import sys
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
import numpy as np
import torch

PAGE = Path(__file__).parents[1] / "docs/models.md"
BACK_ENDS = ("native", "bridge", "hooked")
SECONDS, PARAMETERS, WIDTH = 240, 20_000_000, 150
HEAD = """# Models that can be measured

Each causal class of transformers {transformers} that builds small was built with random weights and
measured on each back end of TransformerLens {lens}.  `measured` gives the largest difference of a
block's log gain from the plain model's in float64, nats (float32 rounds at 1e-7).  A refusal gives
the sentence that the user sees, cut short.  `python tools/models.py` writes this page, and a test
compares a few of its rows.

{counts}

| class | native | bridge | hooked |
| --- | --- | --- | --- |
"""
SMALL: dict[str, Any] = {
    "vocab_size": 4096, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "ffn_dim": 48,
    "max_position_embeddings": 128, "n_positions": 128, "n_embd": 32, "n_layer": 3, "n_head": 4,
    "d_model": 32, "word_embed_proj_dim": 32, "ffn_hidden_size": 48, "n_inner": 48, "rotary_dim": 8,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "query_pre_attn_scalar": 8,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "n_group": 1,
    "topk_group": 1, "intermediate_size_mlp": 48, "q_lora_rank": 16, "kv_lora_rank": 16,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "decoder_layers": 3,
    "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "encoder_layers": 1, "state_size": 8,
    "mamba_d_state": 8, "mamba_d_head": 8, "mamba_n_heads": 8, "expand": 2, "n_groups": 1,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4, "is_decoder": True, "residual_multiplier": 0.22,
}  # fmt: skip


def names() -> list[str]:
    """Return the names of all causal LM classes."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    return sorted({name for name in NAMES.values() if isinstance(name, str)})


def build(name: str) -> Any:
    """Return a small random model of a class in float32; raise ValueError if it does not build."""
    import transformers

    model_class: Any = getattr(transformers, name)
    config_class = model_class.config_class
    known = config_class().to_dict() | dict.fromkeys(config_class.attribute_map)
    heads = {"num_key_value_heads": 4, "head_dim": 8} if "kv_lora_rank" in known else {}
    sizes = {key: value for key, value in (SMALL | heads).items() if key in known}
    config = config_class(**sizes)
    with torch.device("meta"):
        size = sum(weight.numel() for weight in model_class(config).parameters())
    if size > PARAMETERS:
        raise ValueError(f"{size:,} parameters")
    torch.manual_seed(0)
    config.architectures, config.name_or_path = [name], "small"
    model = model_class(config).eval().float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn_like(weight) * 0.1)
    return model


def log_gains(model: Any, tokens: torch.Tensor) -> np.ndarray:
    """Return ln(|next block's input| / |this one's|) [block, token] of a model in float64."""
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the grouped one knows no float64
    with torch.no_grad():
        found = model.double()(tokens, output_hidden_states=True, use_cache=False)
    norms = torch.stack([state[0].norm(dim=-1) for state in found.hidden_states[:-1]])
    return norms.log().diff(dim=0).numpy()


def outcome(model: Any, tokens: torch.Tensor, backend: str, want: np.ndarray | None) -> str:
    """Return what measuring a model on a back end gives: the error, or the refusal."""
    from gainlens.activations.capturing import capture
    from gainlens.models.backends import FRONT_ENDS
    from gainlens.models.hub import read_tokenizer
    from gainlens.models.sources import TWINS
    from gainlens.models.wrapping import wrap

    tokenizer = read_tokenizer(str(TWINS / "context512-theta10k"), None, False)
    try:
        front = FRONT_ENDS[backend](model, tokenizer, model.config, "float32", "cpu")
        captured = capture(wrap(front), tokens)
    except Exception as error:  # a refusal, or a traceback that a user would see
        if not isinstance(error, ValueError):
            return f"TRACEBACK {type(error).__name__}"
        said = " ".join(str(error).split()).replace("|", "\\|")
        return "refused: " + (said if len(said) <= WIDTH else f"{said[: WIDTH - 1]}…")
    if want is None:
        return "measured; the plain model does not run in float64"
    got = 0.5 * np.log(captured.column("yy") / captured.column("xx"))[: len(want)]
    return f"measured, {np.abs(got - want).max():.0e}"


def row(name: str) -> list[str]:
    """Return what happens to a class on each back end; nothing if it does not build small."""
    tokens = torch.arange(3, 27)[None]
    try:
        model = build(name)
    except Exception:  # a class that wants parts which no small config gives
        return []
    try:
        want = log_gains(copy.deepcopy(model), tokens)
    except Exception:
        want = None
    return [outcome(copy.deepcopy(model), tokens, backend, want) for backend in BACK_ENDS]


def isolated(name: str) -> list[str]:
    """Return `row` of a process of its own, which may crash or hang."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_answer, args=(theirs, name))
    process.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(SECONDS) else [f"no answer in {SECONDS} s"] * 3
    except EOFError:
        return ["TRACEBACK"] * 3
    finally:
        process.kill()
        process.join()


def _answer(pipe: Connection, name: str) -> None:
    warnings.simplefilter("ignore")
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stderr(sink):
        pipe.send(row(name))


def page(classes: Sequence[str]) -> str:
    """Return the page of these classes."""
    from importlib.metadata import version

    rows = {name: isolated(name) for name in classes}
    built = {name: cells for name, cells in rows.items() if cells}
    measured = [sum(cells[i].startswith("measured") for cells in built.values()) for i in range(3)]
    counts = f"Of {len(built)} classes, " + ", ".join(
        f"{backend} measures {count}" for backend, count in zip(BACK_ENDS, measured, strict=True)
    )
    table = "".join(f"| {name} | {' | '.join(cells)} |\n" for name, cells in built.items())
    left = ", ".join(name for name, cells in rows.items() if not cells)
    head = HEAD.format(
        transformers=version("transformers"), lens=version("transformer-lens"), counts=counts + "."
    )
    return head + table + (f"\nNot built small: {left}.\n" if left else "")


if __name__ == "__main__":
    import transformers

    transformers.utils.logging.set_verbosity_error()
    import transformer_lens  # noqa: F401

    asked = [f"{name}ForCausalLM" for name in sys.argv[1:]]
    if asked:
        print(page(asked))
    else:
        PAGE.write_text(page(names()), encoding="utf-8")
