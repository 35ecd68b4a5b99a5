"""An experiment's text, split into a training part and a held-out part."""

from dataclasses import dataclass
from typing import Any

from charloom.data import TokenStream
from charloom.studies.experiment import Experiment
from charloom.text import Vocabulary


@dataclass(frozen=True)
class StudyData:
    """The data of an experiment.

    Attributes:
        text: the text, training and held-out part together.
        trained_on: name, SHA-256 and length of the text, as a model file records them.
        vocabulary: vocabulary of the text.
        train: the training part.
        held_out: the held-out part; None if the published experiment had none.
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
            SourceError: the text is unavailable.
        """
        text, trained_on = experiment.text.read()
        vocabulary = Vocabulary.of_texts([text]) if isinstance(text, str) else Vocabulary.of_bytes()
        text = text[: experiment.text.first]
        stream = TokenStream.from_documents([vocabulary.encode(text)])
        held_out = experiment.text.held_out_of(len(stream))
        if not held_out:
            return cls(text, trained_on, vocabulary, stream, None)
        return cls(text, trained_on, vocabulary, *stream.split(len(stream) - held_out))
