"""The one exception that ends a step with a message instead of a traceback."""


class Refused(Exception):
    """What was given cannot be used; the text says what is wrong and what to do."""
