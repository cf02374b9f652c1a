"""How long Raft is without a leader: ``python scripts/elections.py [--check]``.

Figure 16 of Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm"
(extended version, section 9.3): the leader of five servers is crashed a thousand times for each
range of election time-outs. Here the servers are nodes of the simulator, with the machine that
``archbench run`` measures. Writes docs/elections.md and docs/images/elections.png; a new run
gives the same. ``--check`` says whether the page is current.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
from _leader_crashes import LIMIT_NS, SERVERS, Links, TimeOuts, broadcast_ms, downtimes_ms
from numpy.typing import NDArray

from orchestrator.core.units import NS_PER_MS, NS_PER_S

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "elections.md"
IMAGE = DOCS / "images" / "elections.png"
CRASHES = 1000
CRASHES_BRIEFLY = 300
"""In the comparison of links."""
PROCESSES = 2


MAIN = Links((2.0, 3.0), (4.0, 14.5))
RANDOMNESS = tuple(TimeOuts(150, longest) for longest in (150, 151, 155, 175, 200, 300))
SCALE = tuple(TimeOuts(shortest, 2 * shortest) for shortest in (12, 25, 50, 100, 150))
OTHER_LINKS = (
    Links((0.4, 0.6), (6.0, 16.5)),
    MAIN,
    Links((2.0, 3.0), (11.5, 12.5)),
    Links((4.5, 5.5), (1.5, 12.0)),
    Links((7.0, 8.0), (6.5, 7.5)),
    Links((0.0, 10.0), (0.0, 10.0)),
)


# --- all crashes ------------------------------------------------------------------------

Sample = NDArray[numpy.float64]
CHUNK = 50


def _chunk(job: tuple[TimeOuts, Links, int, int]) -> list[float]:
    time_outs, links, crashes, first = job
    return downtimes_ms(time_outs, links, crashes, first)


def samples(asked: Sequence[tuple[TimeOuts, Links, int]]) -> list[Sample]:
    """The downtimes of each setting, in ascending order."""
    jobs = [
        (time_outs, links, min(CHUNK, crashes - first), first)
        for time_outs, links, crashes in asked
        for first in range(0, crashes, CHUNK)
    ]
    with multiprocessing.Pool(PROCESSES) as pool:
        parts = pool.imap(_chunk, jobs)
        chunks = [-(-crashes // CHUNK) for _, _, crashes in asked]
        return [
            numpy.sort(numpy.concatenate([next(parts) for _ in range(count)])) for count in chunks
        ]


# --- the figure -------------------------------------------------------------------------


def drawing(found: dict[TimeOuts, Sample]) -> bytes:
    """The figure as a PNG, in the theme of reports."""
    from orchestrator.report.figures._canvas import picture

    drawn = picture(
        "elections",
        "A little randomness elects a leader soon",
        f"Share of {CRASHES:,} crashes of the leader after which the others had a new one, by range"
        " of election time-outs (simulated). Diamonds: what the Raft paper says of its cluster.",
        "",
        lambda figure: _draw(figure, found),
        height_inches=6.4,
    )
    return drawn.png


def _draw(figure: Any, found: dict[TimeOuts, Sample]) -> None:
    upper, lower = figure.subplots(2, 1)
    limits_ms = (70, LIMIT_NS / NS_PER_MS)
    _draw_curves(upper, {each: found[each] for each in RANDOMNESS}, limits_ms)
    upper.set_xscale("log")
    upper.set_xlim(*limits_ms)
    upper.set_xticks([100, 200, 500, 1000, 2000, 5000, limits_ms[1]])
    _draw_curves(lower, {each: found[each] for each in SCALE}, (0, 600))
    lower.set_xlim(0, 600)
    _draw_said(upper, RANDOMNESS, {2: [(287, 50)], 4: [(513, 100)]})
    _draw_said(lower, SCALE, {0: [(152, 100)]})
    for axes in (upper, lower):
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.xaxis.set_minor_locator(_no_ticks())
        axes.set_ylim(0, 103)
        axes.set_ylabel("Crashes (%)")
    title = "Time-outs"
    upper.legend(loc="center", bbox_to_anchor=(0.51, 0.52), title=title, title_fontsize=8.5)
    lower.legend(loc="lower right", title=title, title_fontsize=8.5)
    upper.set_xlabel("Time without a leader (ms), log")
    lower.set_xlabel("Time without a leader (ms)")


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _colors(count: int) -> list[Any]:
    import seaborn

    return list(seaborn.color_palette("plasma_r", count + 1)[1:])


def _draw_curves(axes: Any, found: dict[TimeOuts, Sample], limits_ms: tuple[float, float]) -> None:
    for (time_outs, sample), color in zip(found.items(), _colors(len(found)), strict=True):
        elected = sample[numpy.isfinite(sample)]
        share = 100 * numpy.arange(1, len(elected) + 1) / len(sample)
        x, y = numpy.append(elected[:1], elected), numpy.append(0, share)
        if len(elected) < len(sample):
            # Flat from the last election on, up to where nobody looked any more.
            x = numpy.append(x if len(x) else limits_ms[0], limits_ms[1])
            y = numpy.append(y, y[-1])
        axes.step(
            x,
            y,
            where="post",
            color=color,
            linewidth=1.9,
            label=time_outs.title,
            clip_on=False,
            zorder=4,
        )


def _draw_said(
    axes: Any, order: Sequence[TimeOuts], said: dict[int, list[tuple[float, float]]]
) -> None:
    colors = _colors(len(order))
    for index, places in said.items():
        axes.plot(
            *zip(*places, strict=True),
            marker="D",
            markersize=7,
            markerfacecolor=colors[index],
            markeredgecolor="black",
            linestyle="none",
            clip_on=False,
            zorder=6,
        )


# --- the page ---------------------------------------------------------------------------

SAID = {
    RANDOMNESS[0]: "consistently longer than 10 s",
    RANDOMNESS[2]: "median 287 ms",
    RANDOMNESS[4]: "longest 513 ms",
    SCALE[0]: "mean 35 ms, longest 152 ms",
    RANDOMNESS[5]: "recommended",
}
HEAD = ("time-outs", "median", "mean", "p90", "p99", "longest", "no leader in 10 s", "the paper")
LINKS_HEAD = (
    "request",
    "answer",
    "broadcast",
    "150–150: no leader in 10 s",
    "150–155: median",
    "150–200: longest",
    "12–24: mean",
    "12–24: longest",
)
INTRODUCTION = f"""# How long Raft is without a leader

Figure 16 of Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (extended
version, section 9.3), measured again by `python scripts/elections.py`: the leader of {SERVERS}
servers is crashed {CRASHES:,} times for each range of election time-outs. The servers are nodes of
the simulator, with the machine that `archbench run` measures and with `pre_vote: false`, which
makes elections those of the paper. A new run of the script gives the same page.

![Time without a leader](images/elections.png)

As in the paper, the logs differ in length, so that two of the four servers that are left can be
elected, each by three of them; the leader crashes at a random moment of the heartbeat interval
that follows a heartbeat to all at once; and that interval is half of the shortest time-out. Here
the logs differ because the network loses what carries some of three writes. Each time is that of a
new cluster from the crash to the moment in which a server knows that it is elected; after
{LIMIT_NS // NS_PER_S} s nobody looks any more (the paper goes on, with 100 trials of 150–150 ms).
Milliseconds:
"""
LINKS_TEXT = """
## Why a broadcast's time is not enough to know

The paper says of its cluster that a broadcast, a request to all servers and the answers of all,
takes some 15 ms. It does not say how much of that is the way of the request, and that decides:
votes split when a second server stands before it has heard that the first one does. On a
local network it is not the wire that takes 15 ms but what a server does before it answers, such as
syncing its vote to a disk. **Two figures here are chosen to fit**: a request takes
{asking} ms, which gives about the paper's median for 150–155 ms, and answers vary much, from
{answering} ms, so that the majority's are there before the last, which gives about the paper's mean
for 12–24 ms. All else in the table above follows. With other links of about the same broadcast time
({crashes} crashes each; uniform delays in ms):
"""
READING = """
- Without randomness the servers stand together for ever, as long as their links are steady: it is
  the difference between the ways of two requests that ends it. Delays that vary by as much as
  the time-outs should (last row) are randomness of their own.
- With the same delay both ways (last but one row) five milliseconds of randomness help far less
  than in the paper: most servers stand before they have heard of another.
- Fifty milliseconds are enough whatever the links are, and the recommended 150–300 ms costs
  little more.
- 12–24 ms is about one broadcast. Elections are quick, but {twice} % of them take more than twice
  the median, and over links that vary more (last row) leaders lose their office for nothing:
  a trial in which that happens before the crash begins anew.
- `pre_vote: true`, the default of `raft`, asks before it stands, which costs one more round trip.
"""


def told(milliseconds: float) -> str:
    """A time for a table."""
    return f"{milliseconds:,.0f}" if numpy.isfinite(milliseconds) else "> 10,000"


def row(time_outs: TimeOuts, sample: Sample) -> Iterator[str]:
    """One line of the table."""
    yield time_outs.title
    yield told(float(numpy.median(sample)))
    yield told(float(sample.mean()))
    for share in (0.9, 0.99):
        yield told(float(numpy.quantile(sample, share, method="higher")))
    yield told(float(sample[-1]))
    yield f"{100 * float(numpy.isinf(sample).mean()):.1f} %"
    yield SAID.get(time_outs, "")


def links_row(links: Links, found: Sequence[Sample]) -> Iterator[str]:
    """One line of the comparison of links."""
    stuck, median, longest, shortest = found
    for low, high in (links.asking_ms, links.answering_ms):
        yield f"{low:g}–{high:g}"
    yield f"{broadcast_ms(links):.1f}"
    yield f"{100 * float(numpy.isinf(stuck).mean()):.0f} %"
    yield told(float(numpy.median(median)))
    yield told(float(longest[-1]))
    yield told(float(shortest.mean()))
    yield told(float(shortest[-1]))


def table(head: Sequence[str], rows: Sequence[Iterator[str]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for cells in rows:
        yield "| " + " | ".join(cells) + " |"


def page(found: dict[TimeOuts, Sample], compared: Sequence[tuple[Links, Sequence[Sample]]]) -> str:
    """The whole page as Markdown."""
    quick = found[SCALE[0]]
    twice = 100 * float((quick > 2 * numpy.median(quick)).mean())
    asking, answering = (
        f"{low:g} to {high:g}" for low, high in (MAIN.asking_ms, MAIN.answering_ms)
    )
    return "\n".join(
        [
            INTRODUCTION,
            *table(HEAD, [row(*each) for each in found.items()]),
            LINKS_TEXT.format(asking=asking, answering=answering, crashes=CRASHES_BRIEFLY),
            *table(LINKS_HEAD, [links_row(*each) for each in compared]),
            READING.format(twice=f"{twice:.0f}"),
        ]
    )


def timed(what: str, asked: Sequence[tuple[TimeOuts, Links, int]]) -> list[Sample]:
    """The samples; says how long they took."""
    began_s = time.monotonic()
    found = samples(asked)
    crashes = sum(each[2] for each in asked)
    took_s = time.monotonic() - began_s
    print(f"{what}: {crashes:,} crashes in {took_s:.0f} s", file=sys.stderr)
    return found


def main() -> int:
    """Write the page and the figure, or compare the page."""
    parser = argparse.ArgumentParser(description="How long Raft is without a leader.")
    parser.add_argument("--check", action="store_true", help="say whether the page is current")
    check = parser.parse_args().check
    shown = tuple(dict.fromkeys(RANDOMNESS + SCALE))
    found = dict(
        zip(shown, timed("the figure", [(each, MAIN, CRASHES) for each in shown]), strict=True)
    )
    other = (RANDOMNESS[0], RANDOMNESS[2], RANDOMNESS[4], SCALE[0])
    asked = [(each, links, CRASHES_BRIEFLY) for links in OTHER_LINKS for each in other]
    rest = iter(timed("other links", asked))
    compared = [(links, [next(rest) for _ in other]) for links in OTHER_LINKS]
    text = page(found, compared)
    if check:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    IMAGE.write_bytes(drawing(found))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
