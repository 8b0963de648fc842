"""Which branch serves a frame, and what to say of it: pure, standard library only."""
