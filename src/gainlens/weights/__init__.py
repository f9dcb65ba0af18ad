"""Measure W_U and RoPE of a loaded model, or of one weight file."""
