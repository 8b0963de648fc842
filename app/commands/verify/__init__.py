"""`gateway verify`: check an output of `gateway analyze` or `gateway bulk`."""
