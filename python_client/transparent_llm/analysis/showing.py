"""Results of several kinds of parts, which are shown and become tables by way of named tensors."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from transparent_llm.analysis.labelled import Labelled
from transparent_llm.table import Table, Tabular

if TYPE_CHECKING:
    import pandas
    import xarray


class ShowsItself(Tabular):
    """`print` tells what it is, a notebook shows a picture; `to_pandas`, `to_xarray`, `save_html` as of `Labelled`."""

    @abstractmethod
    def labelled(self) -> Labelled:
        """Its tensors with their axes and tokens."""

    def __repr__(self) -> str:
        return repr(self.labelled()).replace(type(self.labelled()).__name__, type(self).__name__, 1)

    def table(self) -> Table:
        """What `print` shows."""
        return self.labelled().table()

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return self.labelled().picture()

    def save_html(self, path: str | Path) -> Path:
        """See `Labelled.save_html`."""
        return self.labelled().save_html(path)

    def to_pandas(self, *names: str) -> pandas.DataFrame:
        """See `Labelled.to_pandas`."""
        return self.labelled().to_pandas(*names)

    def to_xarray(self) -> xarray.Dataset:
        """See `Labelled.to_xarray`."""
        return self.labelled().to_xarray()
