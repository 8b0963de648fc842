"""Writing answers: negotiation, encodings, batches, problems."""
