"""What the simulations of a fuzzing run are heavy in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Profile:
    """What simulations are heavy in.

    ``crash`` to ``command``: weights of the kinds of fault. ``hunt``: share that is aimed at the
    leader. ``faults``: how many, between; ``sparse``: share of simulations with far fewer.
    ``lasts``: how long one takes on average, in paces. ``delays``: how many mean delays of a link
    make one pace. ``ambush``: share of simulations in which every new leader crashes;
    ``unheard``: shares of the others that hear nothing of it before; ``told``: commands, one of
    which it is told at once. ``late``: share of simulations in which messages take longer until
    all is healed; ``lateness``: how many do, and by what part of a pace. ``losses``: shares of
    messages that are lost, and that arrive twice, until then. ``rush``: how many times the usual
    number of operations, on fewer keys and from as many times the clients. ``spares``: nodes
    beside the replicas. ``sharded``: share of simulations with several shards, ``moving``: of those
    the share in which data moves, where it can.
    """

    hunt: float
    faults: tuple[int, int]
    crash: float = 0.0
    pause: float = 0.0
    cut: float = 0.0
    storm: float = 0.0
    command: float = 0.0
    delays: tuple[int, ...] = (60, 30, 20)
    sparse: float = 0.0
    lasts: float = 1.5
    ambush: float = 0.0
    unheard: tuple[float, ...] = (0.0, 0.5, 0.7)
    told: tuple[str, ...] = ()
    late: float = 0.2
    lateness: tuple[tuple[float, int], ...] = ((0.05, 1), (0.3, 1), (0.3, 4), (1.0, 4), (1.0, 8))
    losses: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.01, 0.0), (0.03, 0.01), (0.06, 0.02))
    rush: int = 1
    replicas: tuple[int, ...] = (3, 3, 3, 3, 5, 5, 2, 4)
    spares: tuple[int, ...] = (0, 0, 0, 1, 2)
    sharded: float = 0.1
    moving: float = 0.5


PROFILES: Final = {
    "mixed": Profile(
        crash=0.4, pause=0.1, cut=0.35, storm=0.1, command=0.05, hunt=0.4, faults=(6, 14)
    ),
    # Several nodes take over from each other, and from who took over.
    "recovery": Profile(
        crash=0.7,
        pause=0.05,
        cut=0.2,
        storm=0.05,
        hunt=0.7,
        faults=(20, 60),
        delays=(20, 12),
        ambush=0.3,
        late=0.4,
        replicas=(3, 5),
    ),
    # Nodes come back before anybody has noticed that they were away, while messages of those who
    # led before are still under way.
    "blinking": Profile(
        crash=0.8,
        cut=0.1,
        storm=0.1,
        hunt=0.6,
        faults=(60, 120),
        delays=(30, 20),
        lasts=0.02,
        ambush=0.5,
        late=1.0,
        lateness=((1.0, 4), (1.0, 6)),
        replicas=(5,),
    ),
    # Who leads is cut off, and does not know it, while clients ask both sides.
    "isolation": Profile(
        crash=0.1,
        pause=0.1,
        cut=0.8,
        hunt=0.9,
        faults=(15, 30),
        delays=(30, 15),
        lasts=1.0,
        late=0.5,
        rush=3,
    ),
    # Leaders follow one another so quickly that what each one began is finished by others.
    "succession": Profile(
        crash=0.2,
        pause=0.05,
        cut=0.8,
        storm=0.05,
        hunt=0.7,
        faults=(20, 40),
        delays=(30, 20),
        ambush=1.0,
        late=1.0,
        lateness=((0.1, 2), (0.3, 2)),
        replicas=(5,),
    ),
    # Members come and go faster than a change takes, and so do leaders, who begin a change of
    # which few others hear and then are away. Four members are enough that two changes, of which
    # neither has heard of the other, have majorities without a common member.
    "membership": Profile(
        crash=0.03,
        cut=0.07,
        command=0.9,
        hunt=0.5,
        faults=(400, 600),
        sparse=0.7,
        delays=(30,),
        lasts=1.0,
        ambush=1.0,
        unheard=(0.7, 0.8),
        told=("remove",),
        late=0.0,
        replicas=(4,),
        spares=(0, 0, 0, 1),
    ),
    # Data moves between groups whose leaders fail meanwhile, and clients ask again elsewhere.
    "moving": Profile(
        crash=0.4,
        pause=0.1,
        cut=0.4,
        storm=0.1,
        hunt=0.5,
        faults=(6, 20),
        delays=(60, 30),
        lasts=0.7,
        ambush=0.3,
        losses=((0.0, 0.0), (0.03, 0.01)),
        replicas=(3, 3, 2),
        sharded=1.0,
        moving=1.0,
    ),
}
