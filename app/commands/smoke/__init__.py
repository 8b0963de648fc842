"""`gateway smoke`: ask a Triton server or a gateway whether it works."""
