"""Run a model's forward passes and keep a few numbers per block and token.

Takes a model and encoded prompts; returns a Capture, or the loss per prompt.  Only this folder and
`interventions`, which replaces activations, ever see one.
"""
