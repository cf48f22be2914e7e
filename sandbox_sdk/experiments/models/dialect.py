"""What differs between the HTTP APIs of models: their packages, words and forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from sandbox_sdk.experiments.models.base import ModelOutput, ModelRequest

NO_KEY = "not-needed"
"""What an SDK sends to a server that asks for no key."""


@attrs.frozen(kw_only=True)
class Server:
    """Where a call goes.

    Attributes:
        url: The address.
        sdk: The package that speaks its API, and so the one that raises its errors.
        key: The key that is sent; ``None`` where none is.
        variable: The environment variable that holds the key.
    """

    url: str
    sdk: str
    key: str | None = attrs.field(default=None, repr=False)
    variable: str


# Any: the SDK's clients, and arguments that a user's config decides.
class Dialect(Protocol):
    """How one API is spoken."""

    @property
    def name(self) -> str:
        """The word before the slash in ``provider/model``; its variables begin with it."""
        ...

    @property
    def sdk(self) -> str:
        """The package that speaks it, which is also the name of the extra where it is one."""
        ...

    @property
    def url(self) -> str:
        """The provider's own address."""
        ...

    @property
    def renamed(self) -> Mapping[str, tuple[str, str]]:
        """Parameters that some models want by another name: name -> that name, and a warning."""
        ...

    def no_key(self, model: str) -> str:
        """Return what to say where there is neither a key nor an address."""
        ...

    def unknown(self, request: ModelRequest) -> list[str]:
        """Return the parameters of a request that the API has no word for."""
        ...

    def connect(self, server: Server) -> Any:
        """Return the SDK's client; this takes up to a second."""
        ...

    def create(self, client: Any) -> Any:
        """Return the client's method that makes a call and gives its answer as it comes."""
        ...

    def arguments(
        self, request: ModelRequest, parameters: Mapping[str, Any], warnings: list[str]
    ) -> dict[str, Any]:
        """Return that method's arguments; what a reader should know is added to the warnings."""
        ...

    def read(self, body: Any, model: str) -> ModelOutput:
        """Return the answer that a body holds.

        Raises:
            ModelError: It holds none.
        """
        ...
