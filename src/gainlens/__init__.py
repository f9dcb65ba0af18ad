"""Measure what each transformer block does to the residual stream.

    import gainlens

    loaded = gainlens.load("path/or/hub-name")  # or gainlens.wrap(model)
    measured = gainlens.measure(loaded, ["Hello, world."])
    measured.blocks  # a DataFrame: each block's gain, split into attention and MLP

Importing gainlens does not import torch, transformers or transformer_lens.  A name imports what it
needs when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
