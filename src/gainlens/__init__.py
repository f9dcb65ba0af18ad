"""gainlens."""
