"""Report what the weights alone tell: the spectrum of W_U, and RoPE.

A model, or the files of a checkpoint, go in.  An UnembedReport and a RopeReport come out.
"""
