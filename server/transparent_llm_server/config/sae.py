"""A sparse autoencoder to load with a model: its name, its folder, and where in the model it belongs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions.site import site_named
from transparent_llm.quoting import quoted
from transparent_llm_server.config.name import NAME

_FORM = "[MODEL/]NAME=DIR@SITE, or of a transcoder [MODEL/]NAME=DIR@SITE:SITE"


@dataclass(frozen=True)
class SaeConfig:
    """One of them, as `sae = "res1=./sae@residual_out.1"` says it."""

    name: str
    """What clients have for it."""

    folder: str
    sites: tuple[str, ...]
    """What it reads; of a transcoder also what it writes."""

    model: str
    """A name of its model. Empty: the only one."""

    @classmethod
    def parse(cls, text: str) -> SaeConfig:
        """From `[MODEL/]NAME=DIR@SITE` or `[MODEL/]NAME=DIR@SITE:SITE`.

        Raises:
            InvalidRequestError: it is written otherwise, or names no site.
        """
        called, _, place = text.partition("=")
        model, _, name = called.rpartition("/")
        folder, _, sites = place.rpartition("@")
        found = tuple(sites.split(":"))
        if not folder or len(found) > 2 or not NAME.fullmatch(name):
            raise InvalidRequestError(
                f"sparse autoencoder {quoted(text)}: write {_FORM}, where a NAME has letters, digits, '.', '_' and '-'"
            )
        for site in found:
            site_named(site)
        return cls(name, folder, found, model)

    @property
    def place(self) -> tuple[str, ...]:
        """Folder and sites."""
        return (self.folder, *self.sites)


def saes_of_model(texts: Sequence[str], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Folders and sites by name, of those that are for the model with these names, or name no model.

    Raises:
        InvalidRequestError: one is not written as it must be, or two have one name.
    """
    found: dict[str, tuple[str, ...]] = {}
    for each in map(SaeConfig.parse, texts):
        if each.model and each.model not in names:
            continue
        if each.name in found:
            raise InvalidRequestError(f"two sparse autoencoders of model {quoted(names[0])} are named {each.name}")
        found[each.name] = each.place
    return found


def require_models(texts: Sequence[str], names: Sequence[str], n_models: int) -> None:
    """Check what a server is given for its models, which have these names.

    Raises:
        InvalidRequestError: one is not written as it must be, names no model of several, or one that is not served.
    """
    for each in map(SaeConfig.parse, texts):
        if not each.model and n_models > 1:
            raise InvalidRequestError(
                f"sparse autoencoder {each.name} belongs to one model, and there are {n_models}: write "
                f"MODEL/{each.name}=DIR@SITE, or give the model its own, saes = [...] in its table [[models]]"
            )
        if each.model and each.model not in names:
            raise InvalidRequestError(
                f"sparse autoencoder {each.name} is for model {quoted(each.model)}; served are {', '.join(names)}"
            )
