"""Libraries that bring a frame to a branch's size: one module per library."""
