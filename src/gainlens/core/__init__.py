"""Hold what every other folder uses: vocabulary, glossary, spec, presets, messages, formulas.

Takes nothing and computes nothing of a model.  No torch.
"""
