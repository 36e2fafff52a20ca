"""The types of a user's mistake."""


class Refusal(ValueError):
    """Something the user gave cannot be used: one line says what was wanted, what came and what to do.

    The command line prints it alone; every other exception keeps its traceback.
    """


class WrongType(Refusal, TypeError):
    """Something of another type than was wanted."""


class MissingPackage(Refusal, ImportError):
    """A package or module that is needed and cannot be imported."""
