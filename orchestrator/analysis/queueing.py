"""Closed forms of queueing: means of stations with Poisson arrivals, first come first served.

``rate`` is in jobs per second and ``service`` in seconds, or both in other units that fit; waits
and responses are in the unit of ``service``. ``cv2`` is the squared coefficient of variation of the
service time (0 constant, 1 exponential). A station that is offered more than it can serve has no
steady state: its waits are infinite.

Sources: Kleinrock, "Queueing Systems", volume 1 (1975), sections 3.2 to 3.8 and 5.6; Allen,
"Probability, Statistics, and Queueing Theory" (1978), and Cosmetatos, "Some Approximate Equilibrium
Results for the Multi-server Queue M/G/r", Operational Research Quarterly 27(3), 1976, for several
servers with general service times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Queue:
    """A station in steady state. ``utilisation``: busy share of its servers; ``waiting``:
    probability that a job that comes has to wait; ``wait`` and ``response``: means; ``jobs``: mean
    number in the station (Little's law); ``loss``: share of the jobs that find no room.
    """

    utilisation: float
    waiting: float
    wait: float
    response: float
    jobs: float
    loss: float = 0.0


def erlang_b(servers: int, load: float) -> float:
    """Share of the jobs that find all servers busy where nothing may wait; ``load`` in Erlangs."""
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked


def erlang_c(servers: int, load: float) -> float:
    """Probability that a job has to wait for one of ``servers``; ``load`` in Erlangs (1 from as
    many Erlangs as servers).
    """
    if load >= servers:
        return 1.0
    blocked = erlang_b(servers, load)
    return servers * blocked / (servers - load * (1 - blocked))


def mmc(rate: float, service: float, servers: int = 1) -> Queue:
    """M/M/c: exponential service times of mean ``service``."""
    load = rate * service
    waiting = erlang_c(servers, load)
    wait = math.inf if load >= servers else waiting * service / (servers - load)
    return _steady(rate, service, servers, waiting, wait)


def mg1(rate: float, service: float, cv2: float) -> Queue:
    """M/G/1: the formula of Pollaczek and Khinchine."""
    load = rate * service
    wait = math.inf if load >= 1 else (1 + cv2) / 2 * load * service / (1 - load)
    return _steady(rate, service, 1, min(1.0, load), wait)


def mgc(rate: float, service: float, cv2: float, servers: int = 1) -> Queue:
    """M/G/c, approximately; exact for one server and for exponential service times.

    Up to ``cv2`` 1 a mean of M/M/c and M/D/c (Cosmetatos), beyond it Allen and Cunneen's formula,
    (1 + cv2) / 2 of M/M/c.
    """
    exponential = mmc(rate, service, servers)
    load = rate * service
    if not 0 < load < servers:
        return exponential
    share = load / servers
    # Cosmetatos: what several servers lose of the half that constant service times save.
    more = (1 - share) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * load)
    constant = exponential.wait / 2 * (1 + more)
    if cv2 <= 1:
        wait = cv2 * exponential.wait + (1 - cv2) * constant
    else:
        wait = (1 + cv2) / 2 * exponential.wait
    return _steady(rate, service, servers, exponential.waiting, wait)


def mm1k(rate: float, service: float, room: int) -> Queue:
    """M/M/1/K: at most ``room`` jobs in the station, the one in service included; others are lost.

    ``wait``, ``response`` and ``waiting`` are of those that are not lost.
    """
    load = rate * service
    # Scaled by the largest, so that no power overflows.
    top = room if load > 1 else 0
    weights = [load ** (count - top) if load else float(count == 0) for count in range(room + 1)]
    shares = [weight / math.fsum(weights) for weight in weights]
    loss = shares[room]
    jobs = math.fsum(count * share for count, share in enumerate(shares))
    taken = 1 - loss
    response = jobs / (rate * taken) if rate else service
    waiting = math.fsum(shares[1:room]) / taken
    return Queue(1 - shares[0], waiting, response - service, response, jobs, loss)


def _steady(rate: float, service: float, servers: int, waiting: float, wait: float) -> Queue:
    response = wait + service
    utilisation = min(1.0, rate * service / servers)
    return Queue(utilisation, waiting, wait, response, rate * response if rate else 0.0)
