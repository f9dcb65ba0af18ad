"""Other libraries' chatter, silenced; their warnings, not."""

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path


@contextmanager
def chatter_silenced() -> Generator[None]:
    """No progress bars of Hugging Face's, no "Moving model to device" of TransformerLens'.

    Standard output of the libraries goes nowhere; transformers' warnings are still seen on standard
    error.  huggingface_hub's are not: when the hub cannot be reached it reports every retry, and
    hub.py says it in one sentence.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield
