"""Ways in which a measurement could go silently wrong, from a broken checkpoint to the command.

Each is an error of one sentence or a caveat in the result.  `fault` says what goes wrong and what
happens; tools/faults.py makes docs/faults.md of the marks of all test files.
"""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from planting.checkpoints import BACK_ENDS
from planting.planted_blocks import TEXTS, planted_checkpoint
from safetensors.torch import load_file, save_file

import gainlens
from gainlens.cli.compare import compare_command, run
from gainlens.models.loading import encode_for, load

fault = pytest.mark.fault
ROOT = Path(__file__).parents[1]


def edit_weights(folder: Path, change) -> Path:
    """Change the tensors of a checkpoint's one file."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def edit_config(folder: Path, **changes) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def refused(folder: Path, sentence: str, **options) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)


# --- weights


@fault("a weight that is NaN or infinite", "refused at load: the first site that is not finite")
@pytest.mark.parametrize("backend", BACK_ENDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite_names_its_site(make_checkpoint, backend, value):
    def spoil(tensors):
        tensors["model.layers.1.mlp.down_proj.weight"][3, 4] = value

    folder = edit_weights(make_checkpoint(), spoil)
    refused(folder, r"blocks\.1\.hook_mlp_out .* not finite on a short prompt", backend=backend)


@fault("W_U (lm_head) with a NaN", "refused: no spectrum, lm_head incomplete")
def test_an_unembedding_that_is_not_finite_is_refused(make_checkpoint, tmp_path, capsys):
    def spoil(tensors):
        tensors["lm_head.weight"][7, 7] = torch.nan

    folder = str(edit_weights(make_checkpoint(), spoil))
    flags = ["--short", folder, "--long", folder, "--backend", "native", "--out", str(tmp_path)]
    assert run(compare_command, flags) == 2
    assert "check that the checkpoint's lm_head is complete" in capsys.readouterr().err


@fault("weights whose shapes are not those of the config", "refused: the tensor and both shapes")
@pytest.mark.parametrize(
    "changes", [{"intermediate_size": 64}, {"vocab_size": 299}, {"num_key_value_heads": 4}]
)
def test_a_config_that_lies_about_shapes_is_refused(make_checkpoint, changes):
    refused(edit_config(make_checkpoint(), **changes), r"size|shape|mismatched")


@fault("truncated safetensors in a model directory", "refused: what could not be read")
@pytest.mark.parametrize("keep", [0, 6, 100, -1])
def test_truncated_weights_are_refused(make_checkpoint, keep):
    folder = make_checkpoint()
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:keep])
    refused(folder, "cannot be read as safetensors")


@fault("an index of shards that points outside its directory", "refused before anything is read")
def test_shards_outside_the_directory_are_not_opened(make_checkpoint):
    folder = make_checkpoint()
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "part.safetensors").write_bytes(b"")
    index = {"weight_map": dict.fromkeys(names, "../elsewhere.safetensors"), "metadata": {}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "by name alone")


@fault("a quantised checkpoint", "refused: unquantised weights are needed")
def test_a_quantised_checkpoint_is_refused(make_checkpoint):
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}
    refused(edit_config(make_checkpoint(), **quantised), "is quantised")


# --- code and configs


@fault("a checkpoint that brings code", "its code is not run; refused, naming --trust-remote-code")
def test_code_of_a_checkpoint_is_not_run(make_checkpoint, tmp_path, capsys):
    folder, ran = make_checkpoint(), tmp_path / "ran"
    (folder / "modeling_own.py").write_text(
        f"import pathlib; pathlib.Path({str(ran)!r}).write_text('')\n"
        "from transformers import LlamaConfig as OwnConfig, LlamaForCausalLM as OwnModel\n"
    )
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    edit_config(folder, auto_map=own, model_type="own")
    refused(folder, "comes with code of its own.*--trust-remote-code$")
    flags = ["--short", str(folder), "--long", str(folder), "--out", str(tmp_path / "out")]
    assert run(compare_command, flags) == 2
    assert "trust-remote-code" in capsys.readouterr().err.replace("_", "-")
    assert not ran.exists()


@fault("a tokenizer that comes with code", "its code is not run")
def test_code_of_a_tokenizer_is_not_run(make_checkpoint, tmp_path):
    folder, ran = make_checkpoint(), tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    path = folder / "tokenizer_config.json"
    own = {"auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_class": "Own"}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    with pytest.raises(ValueError, match="comes with code of its own"):
        load(folder)
    assert not ran.exists()


@fault("architectures in config.json that are no names", "refused: not a causal language model")
@pytest.mark.parametrize("architectures", [[{}], [3], "LlamaForCausalLM", [[]]])
def test_architectures_that_are_no_names_are_refused(make_checkpoint, architectures):
    refused(edit_config(make_checkpoint(), architectures=architectures), "is a |cannot be read")


@fault("a training record that is none", "refused: what it needs, or to take it away")
@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"compared": 3}', "[" * 100_000])
def test_a_broken_training_record_is_refused(make_checkpoint, record):
    folder = make_checkpoint()
    (folder / "training.json").write_text(record)
    refused(folder, r"training\.json is")


# --- tokenizers


@fault("a tokenizer with more tokens than the embedding has rows", "refused at load")
def test_a_tokenizer_beyond_the_embedding_is_refused(make_checkpoint):
    folder = make_checkpoint(vocab_size=200, bos_token_id=None, eos_token_id=None)
    refused(folder, "embedding has 200 rows: they do not belong together")


@fault("a directory without a tokenizer", "refused: no tokenizer that loads")
def test_a_directory_without_a_tokenizer_is_refused(make_checkpoint):
    folder = make_checkpoint()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    refused(folder, "tokenizer")


@fault("a BOS that the tokenizer adds and the model was trained without, or the other way round",
       "caveat: the result says whether position 0 holds a BOS")  # fmt: skip
@pytest.mark.parametrize("bos", [True, False])
def test_the_result_says_whether_position_zero_holds_a_bos(make_checkpoint, bos):
    loaded = load(make_checkpoint(bos=bos))
    assert encode_for(loaded, gainlens.load_prompts("notebook")).bos is bos


# --- the command


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    short = planted_checkpoint(folder / "short", 1.25)
    long = planted_checkpoint(folder / "long", 0.6, theta=5e5, context=256)
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(TEXTS), encoding="utf-8")
    return ["--short", str(short.folder), "--long", str(long.folder), "--prompts", str(prompts)]


@fault("a model key or a name that leaves the run folder", "only files below it are written")
def test_names_cannot_leave_the_run_folder(pair, one_figure, tmp_path):
    trap = tmp_path / "models" / "..."
    shutil.copytree(pair[1], trap)
    inside = tmp_path / "inside"
    before = set(tmp_path.rglob("*"))
    flags = ["--short", str(trap), *pair[2:], "--no-interventions", "--quiet"]
    assert run(compare_command, [*flags, "--out", str(inside / "run")]) == 0
    written = set(tmp_path.rglob("*")) - before
    assert written
    assert all(path.is_relative_to(inside) for path in written)


@fault("a result file whose model keys are paths", "re-scored; only the run folder is written")
def test_keys_of_a_result_file_cannot_leave_the_run_folder(tmp_path):
    from planting.result_files import document

    tree = document()
    tree["models"] = {f"../../{key}": model for key, model in tree["models"].items()}
    file = tmp_path / "foreign.json"
    file.write_text(json.dumps(tree))
    out = tmp_path / "below" / "out"
    assert run(compare_command, ["--rescore", str(file), "--out", str(out), "--quiet"]) == 0
    others = set(tmp_path.rglob("*")) - {file, out, out.parent}
    assert others
    assert all(path.is_relative_to(out) for path in others)


@fault(
    "a prompt file of 100 MB in one line", "refused: the line, and the most that a line may have"
)
def test_a_hundred_megabytes_in_one_line_are_refused(tmp_path):
    path = tmp_path / "prompts.txt"
    with path.open("wb") as file:
        for _ in range(100):
            file.write(b"a" * 2**20)
    with pytest.raises(ValueError, match="line 1 is longer than"):
        gainlens.load_prompts(str(path))


@fault("theta of config.json is not the one that the model turns with", "refused: both numbers")
def test_a_model_that_turns_with_another_theta_stops_the_comparison(
    pair, tmp_path, capsys, monkeypatch
):
    from gainlens.models.loading import load
    from gainlens.runs import measuring

    plain = load

    def edited(*args, **options):
        loaded = plain(*args, **options)
        loaded.model.model.rotary_emb.inv_freq.pow_(1.2)
        return loaded

    monkeypatch.setattr(measuring, "load", edited)
    flags = [*pair, "--backend", "native", "--no-interventions", "--out", str(tmp_path / "out")]
    assert run(compare_command, flags) == 2
    error = capsys.readouterr().err
    assert "RoPE theta disagrees: the config says 10000" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@fault("a model that ties W_U to its embedding", "caveat: result.json says tied")
def test_the_result_says_whether_embeddings_are_tied(make_checkpoint):
    for tied in (True, False):
        loaded = load(make_checkpoint(tie_word_embeddings=tied))
        assert gainlens.weights.of_model.unembedding(loaded).tied is tied


# --- the table


def test_the_table_of_faults_is_up_to_date():
    page = runpy.run_path(str(ROOT / "tools" / "faults.py"))["page"]
    assert (ROOT / "docs" / "faults.md").read_text("utf-8") == page(), "run tools/faults.py"
