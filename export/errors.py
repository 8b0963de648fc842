"""Errors at export time, in words for the person who runs it."""


class ExportError(Exception):
    """A model can't be made; the message says what was looked for and what to do."""
