"""`gateway doctor`: what is installed, found, reachable and writable here, and what to do about the rest."""
