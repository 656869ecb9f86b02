"""What goes wrong between two machines; all of it is `hotplug.errors.RemoteError`.

RemoteError
├── ProtocolError        a message that breaks the rules of docs/protocol.md
├── VersionError         the two ends speak different versions
├── SessionError         a request without a session, or after its end
├── UnknownGraphError    a graph named by key that is not there; the client sends it again
├── LimitError           more than the other end allows
├── ContentError         a weight whose bytes do not have the hash they were sent for
├── DeadlineError        no answer in time
├── CancelledError       taken back before it began
├── ServerClosingError   the server admits nobody any more
├── KeyFileError         keys that are missing or broken, and files that are open to others
└── ServerLostError (DeviceLostError)   the server is gone, and with it what it held
"""

from __future__ import annotations

from hotplug.errors import DeviceLostError, RemoteError

__all__ = [
    "CancelledError",
    "ContentError",
    "DeadlineError",
    "KeyFileError",
    "LimitError",
    "ProtocolError",
    "ServerClosingError",
    "ServerLostError",
    "SessionError",
    "UnknownGraphError",
    "VersionError",
]


class ProtocolError(RemoteError):
    """A message that breaks the protocol's rules."""


class VersionError(RemoteError):
    """The two ends speak different versions of the protocol or of the op table."""


class SessionError(RemoteError):
    """A request without a session, or after its end."""


class UnknownGraphError(RemoteError):
    """A graph was named by a key that the server does not know."""


class LimitError(RemoteError):
    """More than the other end allows.

    Attributes:
        limit: what it allows.
        given: what was asked for.
    """

    def __init__(
        self,
        message: str,
        *,
        limit: int = 0,
        given: int = 0,
        endpoint: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, endpoint=endpoint, remedy=remedy)
        self.limit = limit
        self.given = given


class ContentError(RemoteError):
    """A weight whose bytes do not have the hash they were sent for."""


class DeadlineError(RemoteError):
    """No answer came in time, or a request's time was over before it began.

    Attributes:
        seconds: how long the client waits.
    """

    def __init__(
        self,
        message: str,
        *,
        seconds: float = 0.0,
        endpoint: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, endpoint=endpoint, remedy=remedy)
        self.seconds = seconds


class CancelledError(RemoteError):
    """A request that was taken back before it began."""


class ServerClosingError(RemoteError):
    """The server is being shut down and admits nobody."""


class KeyFileError(RemoteError):
    """Keys that are missing or broken, and files, of keys or weights, that are open to others."""


class ServerLostError(RemoteError, DeviceLostError):
    """The server is gone or cannot be reached, and with it all that it held."""

    def __init__(
        self,
        message: str,
        *,
        endpoint: str | None = None,
        device: str | None = None,
        remedy: str | None = None,
    ) -> None:
        RemoteError.__init__(self, message, endpoint=endpoint, remedy=remedy)
        self.device = device
