"""Errors that a user can fix. Each message is one line that says what was wrong, where, and what to do."""


class CharloomError(Exception):
    """Base class of every error that a user, rather than a developer, can fix."""


class SettingError(CharloomError, ValueError):
    """A setting is out of its range or contradicts another one. It is raised before charloom opens any file.

    Attributes:
        setting: Name of the setting. The command line shows its option instead.
        problem: What is wrong with it, a phrase that follows the name.
    """

    def __init__(self, setting: str, problem: str):
        super().__init__(f"{setting} {problem}")
        self.setting = setting
        self.problem = problem


class SourceError(CharloomError):
    """A text cannot be read: it is missing, unreadable, empty, binary, or in another encoding."""


class EncodingError(SourceError):
    """A text is not in the given encoding.

    Attributes:
        problem: The message without the advice, which depends on who reads it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem


class TooShortError(CharloomError, ValueError):
    """A text or prompt is too short for the request."""


class BudgetError(CharloomError):
    """The budget is too short for one step, validation and saving."""


class TextTypeError(CharloomError, TypeError):
    """A value that should be a text has another type."""


class UnknownCharacterError(CharloomError, ValueError):
    """A text has a character that is not in the vocabulary."""


class RecordError(CharloomError, ValueError):
    """A text that should be one record contains the end of a record."""


class ModelFileError(CharloomError):
    """A model file is missing, damaged, or from an unsupported version."""


class OutputError(CharloomError):
    """A file cannot be written to the requested place."""


class InUseError(OutputError):
    """Another charloom process is using the folder."""


class RunFolderError(CharloomError):
    """A run cannot be resumed: it is missing or damaged, or its text, version or settings differ."""


class ForkedError(CharloomError, RuntimeError):
    """A forked process cannot compute, because its parent had already started JAX or the native kernels."""
