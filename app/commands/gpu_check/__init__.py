"""`gateway gpu-check`: what a GPU host should run first. Without a GPU it says what is missing."""
