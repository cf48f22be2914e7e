"""What a caller was given to prove who they are: four forms, and which of several is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import attrs

from sandbox_sdk.auth.secret_texts import Kind, well_formed
from sandbox_sdk.config import Settings
from sandbox_sdk.config_keys import CREDENTIALS
from sandbox_sdk.parse import Faults, parse_mapping, parse_text, suggestion

Method = Literal["token", "api_key", "client", "session"]
"""How a caller proves who they are, in the order in which they are used."""

_PLACEHOLDER = re.compile(r"your[-_ ].*|<.*>|change[-_ ]?me|x{3,}", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class Credentials:
    """What was given.

    Attributes:
        token: An access token, used as it is.
        api_key: An API key, used as it is.
        client_id: A client's id, with its secret good for access tokens.
        client_secret: The client's secret.
        session: The file of a session that was begun before.
    """

    token: str | None = attrs.field(default=None, repr=False)
    api_key: str | None = attrs.field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = attrs.field(default=None, repr=False)
    session: Path | None = None

    @classmethod
    def parse(cls, auth_config: Mapping[str, object]) -> Self:
        """Return what ``auth_config`` holds.

        Raises:
            ConfigError: A name is unknown, or a value is wrong or a placeholder; all faults at
                once, and no value is shown.
        """
        faults = Faults()
        found: dict[str, str] = {}
        with faults.collect():
            for name, value in parse_mapping(auth_config, "auth_config").items():
                path = f"auth_config.{name}"
                if name not in CREDENTIALS:
                    faults.add(path, f"unknown{suggestion(name, CREDENTIALS)}")
                elif value is not None:
                    text = str(value) if isinstance(value, Path) else value
                    with faults.collect():
                        found[name] = parse_text(text, path)
        faults.check()
        session = found.pop("session", None)
        made = cls(
            **found, session=None if session is None else Path(session).expanduser().absolute()
        )
        made.check()
        return made

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return what settings hold.

        Raises:
            ConfigError: A value is wrong or a placeholder; all faults at once.
        """
        made = cls(
            token=settings.token,
            api_key=settings.api_key,
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            session=settings.session,
        )
        made.check()
        return made

    @property
    def method(self) -> Method | None:
        """Which of them is used; ``None`` is none, as where the operating system vouches."""
        return next(iter(self.given), None)

    @property
    def given(self) -> tuple[Method, ...]:
        """Which forms were given, the one that is used first."""
        forms: dict[Method, object] = {
            "token": self.token,
            "api_key": self.api_key,
            "client": self.client_id,
            "session": self.session,
        }
        return tuple(method for method, value in forms.items() if value)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must stand in no message."""
        return tuple(filter(None, (self.token, self.api_key, self.client_secret)))

    def check(self) -> None:
        """Go on if every value can be what it is meant as.

        Raises:
            ConfigError: It cannot; all faults at once.
        """
        faults = Faults()
        values = {name: getattr(self, name) for name in CREDENTIALS if name != "session"}
        for name, value in values.items():
            if value is None:
                continue
            if _PLACEHOLDER.fullmatch(value):
                faults.add(name, "is still the placeholder of the documentation")
            elif not value.isascii() or not value.isprintable() or " " in value:
                faults.add(name, "must be of ASCII letters, digits and punctuation, without spaces")
        if (self.client_id is None) != (self.client_secret is None):
            missing = "client_secret" if self.client_secret is None else "client_id"
            faults.add(missing, "is needed too: a client has an id and a secret")
        if self.api_key is not None and _is_cut(self.api_key):
            faults.add(
                "api_key",
                "its checksum is wrong: it was cut or changed when it was copied; take it again "
                "from where it is kept",
            )
        faults.check()


def _is_cut(api_key: str) -> bool:
    return api_key.startswith(Kind.API_KEY) and not well_formed(Kind.API_KEY, api_key)
