"""Run a model's forward passes and keep a few numbers per block and token.

In go a model and encoded prompts; out comes a Capture, or the loss per prompt.  No other room sees
an activation, apart from interventions, which replace one.
"""
