"""transformers' list of models is made once."""

import subprocess
import sys

CODE = """
import builtins
from gainlens.models.importing import import_models
import transformers
from transformers.utils import import_utils
scan = import_utils.create_import_structure_from_path
opened, old = [], builtins.open
builtins.open = lambda path, *args, **kwargs: opened.append(str(path)) or old(path, *args, **kwargs)
{imports}
builtins.open = old
print(sum("modeling_" in path for path in opened))
assert import_utils.create_import_structure_from_path is scan
from transformers.models.llama import LlamaConfig
print(sorted(transformers.models._class_to_module)[:5], LlamaConfig.model_type)
import_models()
"""


def run(imports):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(imports=imports)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def test_no_source_of_a_model_is_read_a_second_time():
    ours, theirs = run("import_models()"), run("import transformers.models")
    assert int(theirs[0]) > 100
    assert ours[0] == "0"
    assert ours[1:] == theirs[1:]
