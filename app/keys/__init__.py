"""API keys: how they are made, recognised and limited."""
