"""Check what a library user's mistake says if types are not checked, as in use."""

import json
import subprocess
import sys

import pytest

CASES = {
    "gainlens.decompose(captured, split='log')": "split is one of logmean, shapley, path",
    "gainlens.reduce_gains(tokens, 'ordinary', 'mean')": "reduction is one of geomean",
    "gainlens.reduce_gains(tokens, 'position 0')": "token_class is one of bos, massive",
    "gainlens.capture(loaded.model, [[1, 2, 3]])": "prompts are a text",
    "gainlens.load(TWIN, backend='hook')": "backend is one of auto, hooked, bridge, native",
    "gainlens.load(TWIN, dtype='fp16')": "dtype is one of float32, bfloat16, float16; got 'fp16'",
    "gainlens.load(TWIN, device='cuda')": "there is no CUDA device here, and cuda was asked for",
    "gainlens.read_run(RUN).report('mine')": "role is one of short, long, reference; got 'mine'",
}
SCRIPT = """
import json, sys
from unittest.mock import patch
import gainlens
RUN, cases = sys.argv[1], json.loads(sys.argv[2])
TWIN = "gainlens:context512-theta10k"
loaded = gainlens.load(TWIN, backend="native")
captured = gainlens.capture(loaded.model, gainlens.encode_for(loaded, ["x = 1", "def f(): pass"]))
tokens = gainlens.decompose(captured)
said = {}
with patch("torch.cuda.is_available", lambda: False):
    for call in cases:
        try:
            eval(call)
            said[call] = "nothing"
        except ValueError as error:
            said[call] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    from planting.runs import planted_run, write_files

    folder = write_files(tmp_path_factory.mktemp("run"), planted_run())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(list(CASES))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("call", CASES)
def test_a_mistake_is_refused_with_what_there_is(said, call):
    assert CASES[call] in said[call]
