"""What a partition knows of one symbol."""

from dataclasses import dataclass, field

from alpha_pulse.processors.candles.stream import Stream
from alpha_pulse.processors.history.job import CandleJob
from alpha_pulse.processors.history.lines import Run
from alpha_pulse.processors.kernel.outputs import Emitter
from alpha_pulse.processors.wire.canonical import start_of_trades


@dataclass(slots=True)
class Symbol:
    """State of one symbol: its live stream, the history jobs that run, its key.

    encoded: as `state` wrote it, while nothing touches its streams. start_of_trades: the canonical
    ones.
    """

    key: bytes
    live: Stream
    jobs: dict[str, Stream | CandleJob] = field(default_factory=dict)
    open_second: int = 0
    encoded: bytes | None = None
    start_of_trades: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.start_of_trades = start_of_trades(self.live.exchange, self.live.symbol)

    def job_with(self, run: Run) -> CandleJob | None:
        """Return the job whose candles look like those of a run."""
        for job in self.jobs.values():
            if isinstance(job, CandleJob) and run.has_form(job.form):
                return job
        return None

    def learn_ids(self, are_consecutive: bool | None) -> None:
        """Note what the log says of the exchange's trade ids; None: nothing."""
        if are_consecutive is None or are_consecutive == self.live.proof.consecutive:
            return
        self.live.learn_ids(are_consecutive)
        for job in self.jobs.values():
            if isinstance(job, Stream):
                job.learn_ids(are_consecutive)

    def settle(self, publish: Emitter) -> None:
        """Publish the windows that changed; let go of the jobs that are done."""
        if self.live.is_touched:
            self.live.settle(publish.revision, publish)
        if self.jobs:
            for name, job in list(self.jobs.items()):
                if job.is_touched:
                    job.settle(publish.revision, publish)
                if job.is_finished:
                    del self.jobs[name]
