"""Hold the words and the options that every other room uses: vocabulary, glossary, specs, messages.

Nothing here reads a file or imports torch.
"""
