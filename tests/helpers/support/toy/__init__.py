"""A family that is nobody's: a pipeline and a component, as a newcomer would write them."""
