"""Hold what every other folder uses: vocabulary, glossary, specs, presets, messages, formulas.

Nothing here reads a file or imports torch.
"""
