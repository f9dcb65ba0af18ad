"""Tiny checkpoints of every architecture that is measured, and the back ends that hold each.

Windows are shorter than the prompts, so that what a back end does beyond a window counts.
"""

from planting.checkpoints import BACK_ENDS

WINDOW = 8
GEMMA = {"head_dim": 8, "sliding_window": WINDOW, "query_pre_attn_scalar": 8}
OWN_KEYS = {"num_key_value_heads": 4}  # GPT-2 and GPT-NeoX know no grouped queries
ARCHITECTURES = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "gemma2": ("Gemma2", GEMMA),
    "gemma3": ("Gemma3", GEMMA),
    "gpt2": ("GPT2", OWN_KEYS),
    "gpt2-tied": ("GPT2", {**OWN_KEYS, "tie_word_embeddings": True}),
    "neox-parallel": ("GPTNeoX", {**OWN_KEYS, "use_parallel_residual": True}),
    "neox-sequential": ("GPTNeoX", {**OWN_KEYS, "use_parallel_residual": False}),
    "phi3": ("Phi3", {"pad_token_id": 258, "sliding_window": WINDOW}),
    "olmo2": ("Olmo2", {}),
}
NOT_HOOKED = {"gemma2", "gemma3", "olmo2"}
"""TransformerLens knows these by the hub's names alone, not by a config."""
CASES = [
    (case, backend)
    for case in ARCHITECTURES
    for backend in BACK_ENDS
    if not (backend == "hooked" and case in NOT_HOOKED)
]
FRONT_ENDS = [(case, backend) for case, backend in CASES if backend != "native"]
