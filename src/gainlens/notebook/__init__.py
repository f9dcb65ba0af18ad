"""Reproduce the notebook that gainlens grew out of, and re-score the result files beside it.

A capture of one sentence or a finished comparison goes in; the notebook's own statistics, verdict,
table and JSON come out, to the digit.  Result files go in too; what their numbers are, what follows
from them and what cannot follow comes out (`rescoring.rescore`).
"""
