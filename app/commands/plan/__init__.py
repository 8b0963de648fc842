"""`gateway plan`: what the branches need of a device's memory, and which of them fit."""
