"""Change the forward pass of a model and measure again.

In goes a Baseline: a model, its prompts and their decomposition.  Out come records that hold the
last block's gain and the loss before and after each intervention, paired over prompts.
"""
