"""What a model's tokens are called in answers."""

from charloom.text import Vocabulary


def token_names(vocabulary: Vocabulary) -> list[str]:
    """Returns each token's name: its character, or of a byte that is no ASCII what OpenAI calls such."""
    if vocabulary.units == "chars":
        return list(vocabulary.characters)
    return [chr(byte) if byte < 0x80 else f"bytes:\\x{byte:02x}" for byte in range(256)]
