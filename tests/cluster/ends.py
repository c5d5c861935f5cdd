"""How a cluster may end while requests run, and what must be gone then."""

from __future__ import annotations

from tests.cluster.clients import Asking, Load, Question
from tests.cluster.running import Cluster, eventually
from tests.cluster.slow_site import slow_site
from tests.cluster.traces import Traces

QUESTIONS = (Question((1, 2), "Hello there"), Question((), "Hello there"))
ORPHANS_S = 60.0


def check_stops_while_requests_run(cluster: Cluster, traces: Traces, number: int) -> None:
    """Answers that are nearly there may still come; who would wait longer is told at once.

    The cluster must allow private addresses.
    """
    with slow_site() as site:
        endless = Question((), "What is it?", url=f"{site.url}/slow.png")
        with Load(cluster, QUESTIONS, clients=4) as load, Asking(cluster, endless) as asking:
            eventually(lambda: site.seen and load.streaming, "requests run")
            code = cluster.stop(number)
    assert code == 0
    assert traces.left() == []
    assert not [line for line in cluster.log if "Traceback" in line or "did not stop" in line]
    for outcome in load.outcomes:
        assert outcome.complete or outcome.error or "refused" in outcome.cut, outcome
    error = asking.outcome.error
    assert error is not None
    assert (asking.outcome.status, error["message"]) == (503, "the server stops")


def check_orphans_end(cluster: Cluster, traces: Traces) -> None:
    """kill -9 of the supervisor: its children notice and free what is theirs.

    Only the runtime folder with the configurations is left, for the next start to sweep.
    """
    with Load(cluster, QUESTIONS, clients=2) as load:
        eventually(lambda: load.streaming, "a stream has begun")
        cluster.process.kill()
    eventually(lambda: not traces.living(), "all children have ended", ORPHANS_S)
    assert not [path for path in traces.segments if path.exists()]
    assert not [file for file in traces.base.rglob("*") if file.is_socket()]
