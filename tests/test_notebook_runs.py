"""notebooks/long_context.ipynb: short, clean, and it runs; on Colab and on real checkpoints too, as
far as that can be tried without either."""

import json
import re
import zipfile
from pathlib import Path

import nbclient
import nbformat
import pytest
from planting.checkpoints import build_model
from planting.gguf_files import TINY, write_gguf
from planting.runs import planted_run, write_files

from gainlens.results.run_folder import RESULT

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "long_context.ipynb"
COLAB = """
class files:
    @staticmethod
    def download(path):
        print("downloaded", path)
"""


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def code(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def run(notebook, folder: Path):
    """The executed notebook; a cell's exception is raised."""
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def printed(notebook) -> str:
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    return "".join(out.text for out in outputs if out.output_type == "stream")


def test_it_is_stored_as_it_ran_with_figures_and_without_a_machines_paths():
    notebook = read()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert len(pictures(notebook)) == 5
    assert not re.search(r"/(home|root|tmp|Users)/", json.dumps(notebook))


def pictures(notebook) -> list[str]:
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    return [out.data["image/png"] for out in outputs if "image/png" in out.get("data", {})]


def test_its_cells_are_short_and_its_ten_steps_are_numbered():
    notebook = read()
    assert max(source.count("\n") + 1 for source in code(notebook)) <= 25
    headings = [cell.source.splitlines()[0] for cell in notebook.cells if "## " in cell.source]
    assert [heading.split()[1] for heading in headings[:10]] == [str(n) for n in range(1, 11)]


def test_the_preset_is_one_line_of_its_own():
    sources = code(read())
    assert sources[0].splitlines()[0] == 'PRESET = "twins"'
    for name in ("PRESET =", "REPOSITORY ="):
        assert [name in source for source in sources].count(True) == 1


@pytest.mark.slow
def test_it_runs_on_the_twins(tmp_path):
    notebook = run(read(), tmp_path)
    folder = tmp_path / "runs" / "twins"
    result = json.loads((folder / RESULT).read_text("utf-8"))
    text = printed(notebook)
    assert f"the notebook's rule: {result['hypothesis_test']['verdict']}" in text
    assert result["verdict"]["headline"] in text
    before, after = (float(nats) for nats in re.findall(r"([+-][\d.]+) nats", text)[-2:])
    assert 0 < after < before
    assert len(pictures(notebook)) == 5
    assert "4 of 4 models measured" in json.dumps(notebook)
    with zipfile.ZipFile(tmp_path / "gainlens-twins.zip") as archive:
        assert {RESULT, "report.html", "figures/headline.png"} <= set(archive.namelist())


@pytest.mark.slow
def test_a_gguf_file_of_ones_own_is_one_line_away(tmp_path):
    """It stands beside the first twin, and nothing is logged into."""
    own = tmp_path / "own.gguf"
    write_gguf(own, build_model(**TINY, rms_norm_eps=1e-6, max_position_embeddings=2048))
    notebook = read()
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = first.source.replace('"twins"', repr(str(own)))
    text = printed(run(notebook, tmp_path))
    name = "context512-theta10k-vs-own.gguf"
    result = json.loads((tmp_path / "runs" / name / RESULT).read_text("utf-8"))
    assert [*result["models"]] == ["context512-theta10k", "own.gguf"]
    assert f"the notebook's rule: {result['hypothesis_test']['verdict']}" in text
    assert (tmp_path / f"gainlens-{name}.zip").is_file()


@pytest.mark.slow
def test_real_checkpoints_are_one_line_away_and_colab_downloads(tmp_path, monkeypatch):
    """The measuring itself is left out: a finished run takes its place."""
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_token")  # else the cell asks for one
    finished, planted = tmp_path / "finished", planted_run()
    write_files(finished, planted)
    colab = tmp_path / "google" / "colab"
    colab.mkdir(parents=True)
    (colab / "__init__.py").write_text(COLAB, encoding="utf-8")

    notebook = read()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells[0].source = cells[0].source.replace("twins", "llama")
    measuring = next(i for i, cell in enumerate(cells) if "gainlens.compare(" in cell.source)
    saving = next(cell for cell in cells if "make_archive" in cell.source)
    stand_in = nbformat.v4.new_code_cell(
        f"comparison = gainlens.read_run({str(finished)!r})\n"
        "write_run(folder, folder / 'figures', comparison)\n"
        "print(shipped, spec.backend)"
    )
    notebook.cells = [*cells[:measuring], stand_in, saving]
    text = printed(run(notebook, tmp_path))

    assert "False native" in text
    assert "meta-llama/Llama-3.1-8B" in text
    assert f"downloaded {tmp_path / 'gainlens-llama.zip'}" in text
