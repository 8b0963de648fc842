"""Estimated memory of branches beside the memory that a process really takes."""
