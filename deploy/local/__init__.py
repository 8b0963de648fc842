"""A real Triton and the whole stack on one machine, without Docker."""
