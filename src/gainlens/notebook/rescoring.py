"""Re-score a result file: what each number is, what follows from it, and what cannot.

No model is needed: everything here is arithmetic on the file.  A file is the notebook's JSON, our
own result.json or one of the shapes of `neighbours`.  Contradictions, statements and limits are
records; `rescore_tables` makes their sentences.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gainlens.notebook.documents import read_document
from gainlens.notebook.neighbours import rescore_neighbour
from gainlens.notebook.notebook_rescore import rescore_notebook
from gainlens.notebook.record import plain
from gainlens.notebook.rescored import Rescore


def rescore(source: Mapping[str, Any] | Path) -> Rescore:
    """Re-score one result file.  No model, no torch.

    Args:
        source: the file's path, or the document already parsed.

    Raises ValueError with one sentence if it cannot be read, or holds no gains, norms or spectra.

    Examples:
        >>> from pathlib import Path
        >>> gainlens.rescore(Path("runs/twins/result.json")).ours
        True
    """
    name, document = read_document(source)
    models = document.get("models")
    listed = models.values() if isinstance(models, dict) else ()
    if "gainlens" in document or any(isinstance(m, dict) and "residual" in m for m in listed):
        return rescore_notebook(name, document)
    return rescore_neighbour(name, document)


def to_json(score: Rescore) -> dict[str, Any]:
    """Return plain values for result.json; the unknown is null with `<field>_reason` beside it."""
    from gainlens.notebook.rescore_tables import limits

    models = [{"key": key} | plain(model) for key, model in score.models.items()]
    return plain(score) | {"models": models, "cannot_conclude": list(limits(score))}
