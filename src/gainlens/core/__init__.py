<<<<<<< HEAD
"""Hold what every other folder uses: vocabulary, glossary, spec, presets, messages, formulas.

Takes nothing and computes nothing of a model.  No torch.
=======
"""Hold the words and the options that every other room uses: vocabulary, glossary, specs, messages.

Nothing here reads a file or imports torch.
>>>>>>> main
"""
