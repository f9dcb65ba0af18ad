"""Judge a claim: numbers per prompt become intervals, a verdict and its sentences.  No torch."""
