"""Everything that a user can put right: one line each, saying what was wrong, where, and what to do."""


class CharloomError(Exception):
    """Base of every error that a user, not a developer, can mend."""


class SettingError(CharloomError, ValueError):
    """A setting is out of its range or does not fit another; known without opening any file.

    Attributes:
        setting: the setting's name, which the command line turns into its option.
        problem: what is wrong with it, to be read after the name.
    """

    def __init__(self, setting: str, problem: str):
        super().__init__(f"{setting} {problem}")
        self.setting = setting
        self.problem = problem


class SourceError(CharloomError):
    """A text cannot be had: missing, unreadable, empty, binary, or in another encoding."""


class EncodingError(SourceError):
    """A text is in another encoding than it should be, or none at all.

    Attributes:
        problem: the same without what to do, which depends on who reads it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem


class TooShortError(CharloomError, ValueError):
    """The text is too short for what was asked of it."""


class BudgetError(CharloomError):
    """The time that was given is too short for one step and what comes after it."""


class TextTypeError(CharloomError, TypeError):
    """What should be a text is something else."""


class UnknownCharacterError(CharloomError, ValueError):
    """A text has a character that the vocabulary has not."""


class RecordError(CharloomError, ValueError):
    """A text that should be one record has the end of a record inside it."""


class ModelFileError(CharloomError):
    """A model file is missing, damaged, or from another version."""


class OutputError(CharloomError):
    """A file cannot be written where it was asked for."""


class InUseError(OutputError):
    """Another charloom process is using a folder."""


class RunFolderError(CharloomError):
    """A run cannot be resumed: it is not there, damaged, or of another text, version or settings."""


class ForkedError(CharloomError, RuntimeError):
    """A process that was forked cannot compute with what its parent had begun to compute with."""
