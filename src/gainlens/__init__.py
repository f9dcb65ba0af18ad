"""Where does a transformer's residual stream grow or shrink, which component does it, and on which
tokens?

    import gainlens

    loaded = gainlens.load("path/or/hub-name")
    texts = gainlens.load_prompts("mixed")
    prompts = gainlens.encode_for(loaded, texts)
    captured = gainlens.capture(loaded.model, prompts)
    tokens = gainlens.decompose(captured)                       # every block and token, nats
    gains = gainlens.reduce_gains(tokens, "ordinary", "geomean")

Importing gainlens imports none of torch, transformers and transformer_lens; a name brings what it
needs when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
