"""How is something drawn over time: windows and panels, ticks and limits, and the words for times in labels?"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from qoderdata.formatting import format_time
from qoderdata.frame_checks import require_frame
from qoderdata.plots.axes import label_room, label_ticks, row_points, width_points
from qoderdata.plots.labels import keep_direction, keys_and_names, make_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from numpy.typing import NDArray

#: How a day is written, without its year.
DAY = "%d %b"
_PANEL_COLUMNS, _PANEL_INCHES, _PANEL_TITLE_INCHES, _PANEL_GAP = 3, 1.05, 0.36, 0.025
_PANEL_MARGIN_INCHES, _PANEL_TITLE_COLUMNS = 1.1, 22
_FEWEST_TIMES, _MOST_TIMES, _MOST_PANEL_TIMES, _TIME_LETTERS = 3, 9, 5, 4
_LEAST_SPAN, _MARGIN_SHARE = pd.Timedelta("10min"), 0.02
_FEWEST_WINDOWS, _THINNEST_POINTS = 7, 1.5


def check_times(times: pd.Series[pd.Timestamp] | pd.Index[Any], *, years: int = 100) -> pd.DatetimeIndex:
    """Return the times that are not missing; raise `ValueError` if they span more years than these."""
    known = pd.DatetimeIndex(times.dropna())
    if len(known) and known.max() - known.min() > pd.Timedelta(days=366 * years):
        first, last = format_time(known.min()), format_time(known.max())
        raise ValueError(
            f"{times.name} reaches from {first} to {last}, and the plot shows at most {years} years; leave out "
            "the rows with a wrong time or outside a shorter period, as with "
            f"frame[frame[{str(times.name)!r}].between('2026-01-01T00:00Z', '2026-07-01T00:00Z')]"
        )
    return known


def day_numbers(times: pd.Series[pd.Timestamp] | pd.Index[Any]) -> NDArray[np.float64]:
    """Convert zone-aware times to matplotlib's days since 1970 in UTC."""
    from matplotlib.dates import date2num  # noqa: PLC0415 - heavy, and needed only when drawing

    utc = times.to_numpy("datetime64[us]")
    numbers: NDArray[np.float64] = date2num(utc)  # type: ignore[no-untyped-call]  # matplotlib has no types for it
    return numbers


class Group(NamedTuple):
    """The rows of one group of a summary over time, by ``window`` alone and in its order."""

    key: str
    name: str | None
    rows: pd.DataFrame


def split_windows(summary: pd.DataFrame, *, what: str) -> list[Group]:
    """Split a summary over time into its groups, in the order in which they are first seen.

    Rows without a window are left out; times are checked as `check_times` does, and text as in a frame from CSV is
    refused; `what` names the summary in the message. Raise `ValueError` if a group has a window twice.

    Examples
    --------
    >>> days = pd.to_datetime(["2026-06-16T00:00Z", "2026-06-15T00:00Z"])
    >>> index = pd.MultiIndex.from_product([["red"], days], names=["team", "window"])
    >>> (group,) = split_windows(pd.DataFrame({"failed": [1, 2]}, index), what="rates")
    >>> group.key, group.rows["failed"].tolist()
    ('red', [2, 1])
    """
    if summary.empty:
        return []
    check_times(require_frame(summary.index.to_frame(), ["window"], what=what)["window"])
    summary = summary[summary.index.get_level_values("window").notna()]
    keys, names = keys_and_names(summary)
    levels = [number for number, name in enumerate(summary.index.names) if name != "window"]
    # Different groups may have one text, such as a missing team and one that is called "(none)".
    groups = summary.groupby(level=levels, sort=False, dropna=False).ngroup() if levels else np.zeros(len(summary))
    _, firsts = np.unique(np.asarray(groups), return_index=True)
    alone = summary.set_index(summary.index.get_level_values("window"))
    found = []
    for first, (_, rows) in zip(firsts, alone.groupby(np.asarray(groups)), strict=True):
        if not rows.index.is_unique:
            raise ValueError(
                "a window is there more than once: the keys of a summary are its index; put them there, as in "
                "set_index('deployment_id', append=True)"
            )
        found.append(Group(keys[first], names[first], rows.sort_index()))
    return found


def panels_height(count: int) -> float:
    """Return the height in inches of a new figure with `count` panels."""
    return _PANEL_MARGIN_INCHES + _panel_grid(count)[0] * (_PANEL_INCHES + _PANEL_TITLE_INCHES)


def _panel_grid(count: int) -> tuple[int, int]:
    """Return rows and columns: two columns for two or four panels, else at most three."""
    columns = 2 if count in {2, 4} else min(count, _PANEL_COLUMNS)
    return ceil(count / columns), columns


def group_panels(
    ax: Axes, groups: Sequence[Group], labels: Mapping[str, str] | None, figures: Sequence[str]
) -> list[Axes]:
    """Divide the axes into a panel per group, titled with its name and its figure; all with the same scales.

    The panels, row by row, are children of `ax`, which keeps its title and labels; values stand beside those on
    the left, times below the lowest of each column.
    """
    from matplotlib.text import Annotation  # noqa: PLC0415 - heavy, and needed only when drawing
    from matplotlib.transforms import IdentityTransform  # noqa: PLC0415 - as above

    keys, names = [group.key for group in groups], [group.name for group in groups]
    named = make_labels(keys, names, labels, columns=_PANEL_TITLE_COLUMNS)
    count = len(groups)
    rows, columns = _panel_grid(count)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    # Without y, matplotlib looks at all ticks of all panels, which is slow.
    ax.set_title(ax.get_title(), y=1.0, fontsize=ax.title.get_fontsize())
    title = min(0.5 / rows, _PANEL_TITLE_INCHES * ax.figure.dpi / ax.bbox.height)
    points = row_points(ax, 4 * rows)
    height, width = 1 / rows - title, (1 - _PANEL_GAP * (columns - 1)) / columns

    class PanelTitle(Annotation):
        """A title in a font in which the longest title fits its panel, whose width is known when it is drawn."""

        def draw(self, renderer: RendererBase) -> None:
            if self is titles[0]:
                size, room = points, width * ax.bbox.width
                set_sizes(size)
                while size > 1 and max(title.get_window_extent(renderer).width for title in titles) > room:
                    size *= 0.9
                    set_sizes(size)
            super().draw(renderer)

    def set_sizes(size: float) -> None:
        for title in titles:
            title.set_fontsize(size)

    titles: list[PanelTitle] = []
    panels: list[Axes] = []
    for number, (text, figure) in enumerate(zip(named.texts, figures, strict=True)):
        row, column = divmod(number, columns)
        bounds = (column * (width + _PANEL_GAP), (rows - 1 - row) / rows, width, height)
        first = panels[0] if panels else None
        panel = ax.inset_axes(bounds, sharex=first, sharey=first)
        panel.patch.set_visible(False)
        panel.set_in_layout(False)  # the labels of `ax` are farther out, and the search for all ticks is slow
        panel.tick_params(labelbottom=number + columns >= count, labelleft=column == 0, labelsize=points)
        titles.append(PanelTitle(
            f"{keep_direction(text)}: {figure}", (0, 1), xycoords="axes fraction", xytext=(0, 3),
            textcoords="offset points", va="bottom", fontsize=points, in_layout=False, clip_on=False,
            transform=IdentityTransform(), **named.properties,
        ))  # fmt: skip
        panel.add_artist(titles[-1])
        panels.append(panel)
    # matplotlib does not see the ticks of the panels when it places the labels of these axes.
    ax.xaxis.labelpad, ax.yaxis.labelpad = 2.2 * points + 4, 4.2 * points + 6
    return panels


def set_time_limits(ax: Axes, times: pd.DatetimeIndex) -> float:
    """Set the limits of a time axis, with some room around all times; return the days from one to the other."""
    first, last = times.min(), times.max()
    missing = max(_LEAST_SPAN - (last - first), pd.Timedelta(0)) / 2
    low, high = day_numbers(pd.DatetimeIndex([first - missing, last + missing]))
    room = _MARGIN_SHARE * (high - low)
    ax.set_xlim(low - room, high + room)
    return float(high - low + 2 * room)


def set_window_limits(ax: Axes, times: pd.Index[Any]) -> float:
    """Set the limits of a time axis with a bar per window, and return the width of a bar, in days.

    A few windows leave room beside them; of many, each bar is wide enough to be seen. The length of a single
    window is not known, so only its start is marked, without a scale for the width of its bar.
    """
    begins = np.unique(day_numbers(times))
    if len(begins) == 1:
        label_ticks(ax, {float(begins[0]): f"{times[0]:%Y-%m-%d %H:%M}".removesuffix(" 00:00")}, most=1)
    step = float(np.diff(begins).min()) if len(begins) > 1 else 1.0
    width = max(0.8 * step, _THINNEST_POINTS * (float(np.ptp(begins)) + step) / width_points(ax))
    room = width * max(1.0, (_FEWEST_WINDOWS - len(begins)) / 2)
    ax.set_xlim(begins.min() - room, begins.max() + room)
    return width


def set_time_ticks(ax: Axes, times: pd.DatetimeIndex, *, is_panel: bool = False) -> None:
    """Set the ticks of the x axis, whose values are `day_numbers`, in the zone of the times."""
    from matplotlib import dates  # noqa: PLC0415 - heavy, and needed only when drawing

    class Locator(dates.AutoDateLocator):
        """Marks as many times as there is room for when the picture is drawn."""

        def get_locator(self, dmin: Any, dmax: Any) -> Any:  # noqa: ANN401 - datetimes, a locator
            most = min(_MOST_PANEL_TIMES if is_panel else _MOST_TIMES, label_room(ax, _TIME_LETTERS))
            most = max(_FEWEST_TIMES, most)
            for number in range(most, most + _FEWEST_TIMES):
                self.minticks, self.maxticks = max(2, (number - 1) // 2), dict.fromkeys(self.intervald, number)
                found = super().get_locator(dmin, dmax)  # type: ignore[no-untyped-call]  # matplotlib has no types for it
                if len(found.tick_values(dmin, dmax)) > 1:  # a single mark gives no scale
                    break
            return found

    locator = Locator(tz=times.tz)  # type: ignore[no-untyped-call]  # ditto
    # Without these, matplotlib finds no interval with three ticks for 18 months, and warns.
    for unit, whole in ((dates.MONTHLY, 12), (dates.HOURLY, 24), (dates.MINUTELY, 60), (dates.SECONDLY, 60)):
        locator.intervald[unit] = [*locator.intervald[unit], whole]
    ax.xaxis_date(times.tz)
    ax.xaxis.set_major_locator(locator)
    # The formatter would write the date where the axis label is; the label has the date instead.
    formatter = dates.ConciseDateFormatter(
        locator, tz=times.tz, zero_formats=["", "%Y", "%b", DAY, "%H:%M", "%H:%M"], show_offset=False
    )  # type: ignore[no-untyped-call]  # ditto
    ax.xaxis.set_major_formatter(formatter)


def describe_times(times: pd.DatetimeIndex) -> str:
    """Return zone, first and last day of times, for a label."""
    return f"{describe_zone(times)}; {describe_days(times)}"


def describe_zone(times: pd.DatetimeIndex) -> str:
    """Return the name of the times' zone, with its offsets between the first and the last.

    Examples
    --------
    >>> describe_zone(pd.DatetimeIndex(["2026-03-28T12:00", "2026-03-30T12:00"], tz="Europe/Berlin"))
    'Europe/Berlin (UTC+01:00 and UTC+02:00)'
    >>> describe_zone(pd.DatetimeIndex(["2026-03-28T12:00"], tz="UTC"))
    'UTC'
    """
    name = str(times.tz)
    if name.startswith("UTC") or not len(times):
        return name
    first, last = times.min().tz_convert("UTC"), times.max().tz_convert("UTC")
    weeks = pd.DatetimeIndex([*pd.date_range(first, last, freq="7D"), last])
    offsets = dict.fromkeys(weeks.tz_convert(times.tz).strftime("%z"))
    return f"{name} ({' and '.join(f'UTC{text[:3]}:{text[3:]}' for text in offsets)})"


def describe_days(times: pd.DatetimeIndex) -> str:
    """Return the first and the last day of times as text.

    Examples
    --------
    >>> describe_days(pd.DatetimeIndex(["2026-03-28T12:00", "2026-03-30T12:00"], tz="UTC"))
    '2026-03-28 to 2026-03-30'
    """
    return " to ".join(dict.fromkeys(stamp.strftime("%Y-%m-%d") for stamp in (times.min(), times.max())))
