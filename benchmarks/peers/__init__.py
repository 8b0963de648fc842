"""Services written as their own documentation has it; each runs in an environment of its own."""
