"""Turn what a user names or holds into a checked model with named sites.

A hub name, a directory, a GGUF file, an adapter or a model in memory goes in.  A LoadedModel comes
out: the model, its tokenizer, its sites under TransformerLens' hook names, and its Checkpoint.
"""
