"""Check finished outputs: their files against their manifests, and their models against those at hand."""
