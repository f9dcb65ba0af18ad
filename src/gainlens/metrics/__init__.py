"""Turn a Capture into numbers: log gains and their split, token classes, metrics.

In goes a Capture, which holds inner products per block and token.  Out come arrays [block, token]
and, after a reduction over tokens, one number per block and prompt.  No torch.
"""
