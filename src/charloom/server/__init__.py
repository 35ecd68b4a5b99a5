"""An HTTP server: completions as OpenAI's clients ask for them, scores, and a page to play with a model."""

from charloom.server.guard import require_token
from charloom.server.limits import Limits
from charloom.server.run import serve

__all__ = ["Limits", "require_token", "serve"]
