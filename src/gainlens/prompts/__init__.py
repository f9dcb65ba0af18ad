"""Load texts and turn them into token ids.

The name of a built-in set or a file goes in.  A PromptSet comes out, and with a tokenizer
EncodedPrompts.
"""
