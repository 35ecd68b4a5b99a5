"""An experiment's text, read and cut into what is trained on and what is held out."""

from dataclasses import dataclass
from typing import Any

from charloom.data import TokenStream
from charloom.studies.experiment import Experiment
from charloom.text import Vocabulary


@dataclass(frozen=True)
class StudyData:
    """What an experiment learns from.

    Attributes:
        text: as it was read.
        trained_on: the text's name, SHA-256 and length, as a model file keeps them.
        vocabulary: of the text.
        train: what is trained on.
        held_out: what is not; None where all is trained on, as published.
    """

    text: str | bytes
    trained_on: dict[str, Any]
    vocabulary: Vocabulary
    train: TokenStream
    held_out: TokenStream | None

    @classmethod
    def of(cls, experiment: Experiment) -> "StudyData":
        """Returns the data of `experiment`.

        Raises:
            SourceError: the text cannot be had.
        """
        text, trained_on = experiment.text.read()
        vocabulary = Vocabulary.of_texts([text]) if isinstance(text, str) else Vocabulary.of_bytes()
        text = text[: experiment.text.first]
        stream = TokenStream.from_documents([vocabulary.encode(text)])
        held_out = experiment.text.held_out_of(len(stream))
        if not held_out:
            return cls(text, trained_on, vocabulary, stream, None)
        return cls(text, trained_on, vocabulary, *stream.split(len(stream) - held_out))
