"""Import transformers' list of models without reading all their sources a second time."""

import sys
from pathlib import Path


def import_models() -> None:
    """Import transformers.models; what `import transformers` found out about it is used again.

    transformers 5 reads every file of its models to learn which names each defines: once for
    itself and once more, 0.3 s later, for the package `transformers.models`, which asks by another
    spelling of the same path, so that its cache does not answer.
    """
    import transformers
    from transformers.utils import import_utils

    scan = getattr(import_utils, "create_import_structure_from_path", None)
    if scan is None or "transformers.models" in sys.modules:
        return
    models = Path(transformers.__file__).parent / "models"

    def scan_once(path: str | Path) -> object:
        return scan(models if Path(path) == models / "__init__.py" else path)

    import_utils.create_import_structure_from_path = scan_once
    try:
        import transformers.models  # pyright: ignore[reportUnusedImport]
    finally:
        import_utils.create_import_structure_from_path = scan
