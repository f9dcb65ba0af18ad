"""Turn a name, a directory or a model in memory into a checked model with named sites.

Takes a source and gives a LoadedModel: the model, its tokenizer, its sites, and its Checkpoint.
"""
