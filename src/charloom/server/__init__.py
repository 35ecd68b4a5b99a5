"""An HTTP server: completions in OpenAI's format, scores, and a web page to try a model."""

from charloom.server.guard import require_token
from charloom.server.limits import Limits
from charloom.server.run import serve

__all__ = ["Limits", "require_token", "serve"]
