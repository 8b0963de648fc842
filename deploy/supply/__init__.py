"""The supply chain: versions, hashes, digests and advisories."""
