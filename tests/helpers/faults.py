"""A campaign of faults: each is done to an audit of its own, which must end with the bytes of an undisturbed one.

What a fault came to is a `Fault`: the audit went on by itself, or it refused with a message whose advice was then
taken. Whatever is drawn (moments, files, requests) comes from one seed. A fault that never hit is not counted.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
from helpers.commands import Commands, Ended
from helpers.disks import SmallDisk
from helpers.harm import HARMS, everything, progress_of, stage_bytes, telling, workers_of
from helpers.planted import write_planted
from helpers.s3 import FaultyS3

from microtome.storage.places import open_place

SAMPLES, FEW_SAMPLES = 32, 12
BY_ITSELF, REFUSED = "went on by itself", "refused, then mended"


@dataclass(frozen=True)
class Fault:
    """One fault that hit: its kind, what exactly, how it ended, with which exit code and words, what then differed."""

    kind: str
    what: str
    ended: str
    code: int
    message: str
    wrong: tuple[str, ...]


@dataclass
class Campaign:
    """Audits of one small source, to which faults are done. Nothing of it is shared with another campaign."""

    folder: Path
    commands: Commands
    seed: int
    faults: list[Fault] = field(default_factory=list)
    missed: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.source = write_planted(self.folder)
        self._count = 0
        self.small_bytes: dict[str, bytes] = {}
        self.calm = self.folder / "calm"
        self.must(self.commands.run(self.audit(self.calm)))
        started = time.monotonic()
        self.must(self.commands.run(self.audit(self.folder / "timed")))
        self.whole = self.repairing = time.monotonic() - started
        self.calm_bytes = everything(self.calm)

    # Audits

    def audit(self, out: Path | str, *more: str) -> list[str]:
        """The command that every audit of the campaign is."""
        command = ["audit", f"{self.source}:model", f"{self.source}:images", "--layers", "units,head", "--tau", "0.05"]
        command += ["--batch", "2", "--shard-samples", "4", "--top", "3", "--out", str(out)]
        return [*command, *(more or ("--limit", str(SAMPLES)))]

    def new_run(self) -> Path:
        """Where nothing is yet."""
        self._count += 1
        return self.folder / f"run-{self._count:03d}"

    def copy(self) -> Path:
        """A copy of the finished run."""
        return shutil.copytree(self.calm, self.new_run())

    def must(self, ended: Ended, code: int = 0) -> Ended:
        """What ended, which must have ended so."""
        if ended.code != code:
            raise AssertionError(f"exit code {ended.code} instead of {code}:\n{ended.said}")
        return ended

    def finish(
        self,
        met: Sequence[tuple[str, str]],
        run: Path | str,
        ended: Ended,
        *,
        refusal: tuple[int, str] | None = None,
        mend: Sequence[str] | None = None,
        calm: Mapping[str, bytes] | None = None,
    ) -> None:
        """Note the faults (kind, what exactly) that one audit met. `ended` is how it ended.

        refusal: exit code, and a pattern of what the message must advise, where it is expected to refuse;
        mend: the command that is given next; calm: what an undisturbed run holds.
        """
        wrong = []
        if refusal is not None:
            code, advice = refusal
            if ended.code != code or not re.search(advice, ended.said) or "Traceback" in ended.said:
                wrong.append(f"exit code {ended.code}, not {code} with {advice!r}:\n{ended.said}")
        elif mend is None and ended.code != 0:
            wrong.append(f"exit code {ended.code}\n{ended.said}")
        if mend is not None:
            mended = self.commands.run(mend)
            if mended.code != 0:
                wrong.append(f"{' '.join(mend)}: exit code {mended.code}\n{mended.said}")
        if not wrong:
            found, expected = everything(run), calm or self.calm_bytes
            wrong += sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        message = re.sub(r"/proc/\d+/root\S*", "RUN", telling(ended.said) if refusal else "").replace(str(run), "RUN")
        how = REFUSED if refusal is not None else BY_ITSELF
        self.faults += [Fault(kind, what, how, ended.code, message, tuple(wrong)) for kind, what in met]
        if isinstance(run, Path) and not wrong:
            shutil.rmtree(run)

    # Kinds of faults

    def kill_audit(self, number: signal.Signals = signal.SIGKILL) -> bool:
        """End an audit by a signal at a random moment, and give the same command again; whether it hit."""
        run = self.new_run()
        after = self.dice.uniform(0.05, 0.95) * self.whole
        audit = self.commands.start(self.audit(run))
        began = time.monotonic()
        audit.wait(lambda: time.monotonic() - began > after)
        if not audit.running:
            self.missed += 1
            return False
        at = progress_of(run)
        audit.send(number)
        ended = audit.wait()
        if ended.code == 0:  # it was over before the signal came
            self.missed += 1
            return False
        refusal = (130, "the same command goes on") if number == signal.SIGINT else None
        self.finish([(f"audit ended by {number.name}", at)], run, ended, refusal=refusal, mend=self.audit(run))
        return True

    def kill_repair(self) -> bool:
        """Kill a repair, and repair again; where it was over too soon, the next one is killed earlier."""
        run = self.copy()
        for file in self.dice.sample(sorted(run.glob("commits/*/0*.json")), 3):
            file.unlink()
        repair = self.commands.start(["verify", str(run), "--repair"])
        began, after = time.monotonic(), self.dice.uniform(0.1, 0.5) * self.repairing
        repair.wait(lambda: time.monotonic() - began > after)
        if not repair.running:
            self.repairing /= 2
            self.missed += 1
            return False
        at = progress_of(run)
        ended = repair.kill()
        self.finish([("repair ended by SIGKILL", at)], run, ended, mend=["verify", str(run), "--repair"])
        return True

    def two_at_once(self, killed: bool) -> None:
        """A second audit while the first is at work; the first is then let go on, or killed with the lock in hand."""
        run = self.new_run()
        first = self.commands.start(self.audit(run))
        first.wait(lambda: (run / "commits/capture/000001.json").exists())
        first.send(signal.SIGSTOP)
        second = self.commands.run(self.audit(run))
        met = [("a second audit at once", progress_of(run))]
        if killed:
            first.kill()
            last = self.must(self.commands.run(self.audit(run)))
            if not re.search(rf"taken over the lock of a dead audit, process {first.pid}", last.said):
                raise AssertionError(last.said)
        else:
            first.send(signal.SIGCONT)
            self.must(first.wait())
        refusal = (4, rf"in use: audit, process {first.pid}.*run the same command again")
        self.finish(met, run, second, refusal=refusal, mend=self.audit(run))
        if killed:
            refused = self.faults[-1]
            self.faults.append(replace(refused, kind="lock of a dead audit", ended=BY_ITSELF, code=0, message=""))

    def damage(self, harm: str, pattern: str) -> None:
        """Harm a file of the finished run: verify finds it, --repair mends it."""
        run = self.copy()
        file = self.dice.choice(sorted(path for path in run.glob(pattern) if path.is_file()))
        HARMS[harm](file, self.dice)
        name = file.relative_to(run).as_posix()
        found = self.commands.run(["verify", str(run)])
        accused = re.escape(name) if harm != "byte flipped" or not name.endswith(".json") else ""
        refusal = (4, rf"(?s){accused}.*microtome verify .*--repair makes them again")
        self.finish([(harm, name)], run, found, refusal=refusal, mend=["verify", str(run), "--repair"])

    def damage_unnoticed(self, harm: str, pattern: str) -> None:
        """Cut short or delete a file of a run that is then asked for again: resuming alone mends it."""
        run = self.copy()
        file = self.dice.choice(sorted(path for path in run.glob(pattern) if path.is_file()))
        HARMS[harm](file, self.dice)
        ended = self.commands.run(["audit", "--resume", str(run)])
        self.finish([(f"{harm}, then resumed", file.relative_to(run).as_posix())], run, ended)

    def damage_unfinished(self) -> bool:
        """Flip a byte of what capture left, before the stages that need it; whether one of them met it."""
        run = self.new_run()
        audit = self.commands.start(self.audit(run))
        audit.wait(lambda: (run / "commits/thresholds").exists())
        audit.kill()
        patterns = ("arrays.zarr/layers/*/activations/c/**/*", "commits/capture/*.zst", "commits/capture.merge1/*.zst")
        found = sorted(path for path in run.glob(self.dice.choice(patterns)) if path.is_file())
        if not found:
            self.missed += 1
            return False
        file = self.dice.choice(found)
        HARMS["byte flipped"](file, self.dice)
        ended = self.commands.run(["audit", "--resume", str(run)])
        if ended.code == 0:
            self.missed += 1
            return False
        met = [("byte flipped in an unfinished run", file.relative_to(run).as_posix())]
        refusal = (4, r"mend the damage with: microtome verify \S+ --repair")
        self.finish(met, run, ended, refusal=refusal, mend=["verify", str(run), "--repair"])
        return True

    def damage_run_json(self) -> None:
        """Cut run.json short: a refusal, and a copy of it brought back."""
        run = self.copy()
        HARMS["file cut short"](run / "run.json", self.dice)
        ended = self.commands.run(["verify", str(run), "--repair"])
        shutil.copy(self.calm / "run.json", run / "run.json")
        refusal = (4, r"run\.json .*bring it back from a copy")
        self.finish([("file cut short", "run.json")], run, ended, refusal=refusal, mend=["verify", str(run)])

    def fill_disk(self, disk: SmallDisk) -> None:
        """Fill the disk in the middle of each stage in turn; make room, and give the same command again."""
        self._count += 1
        run = disk.path / f"run-{self._count:03d}"
        empty, log = disk.free, sum(path.stat().st_size for path in self.calm.glob("log/*"))
        shutil.copytree(self.calm, run, ignore=shutil.ignore_patterns("log"))
        sizes = stage_bytes(self.calm)
        folders = empty - disk.free - sum(sizes.values())
        shutil.rmtree(run)
        for place, stage in enumerate(sizes):
            level = sum(list(sizes.values())[:place]) + sizes[stage] * self.dice.uniform(0.3, 0.7)
            logs = [
                path.stat().st_size for path in run.glob("log/*")
            ]  # each start adds one, about as long as the calm one
            used = empty - disk.free - sum(logs)
            disk.leave(int(level) + folders - used + log)
            ended = self.commands.run(self.audit(run))
            disk.make_room()
            if ended.code == 0:
                self.missed += 1
                break
            at = progress_of(run)
            copied = shutil.copytree(run, self.new_run())
            refusal = (1, "is full .*make room and run the same command again")
            self.finish([(f"disk full ({disk.kind})", at)], copied, ended, refusal=refusal, mend=self.audit(copied))
        shutil.rmtree(run)

    # In a bucket

    def begin_buckets(self) -> None:
        """An undisturbed run of the smaller audit that goes to buckets."""
        calm = self.folder / "calm-small"
        self.must(self.commands.run(self.small_audit(calm)))
        self.small_bytes = everything(calm)

    def small_audit(self, out: Path | str) -> list[str]:
        """An audit of few objects."""
        return self.audit(out, "--limit", str(FEW_SAMPLES))

    def bucket_faults(self, s3: FaultyS3, *orders: tuple[str, str, str, int]) -> None:
        """Faults (kind, method, part of the key, how many requests) for one audit into a bucket."""
        self._count += 1
        url, before = f"{s3.url}/run-{self._count:03d}", len(s3.faults.met)
        for kind, method, match, times in orders:
            s3.inject(kind, times=times, method=method, match=match)
        ended = self.commands.run(self.small_audit(url))
        s3.faults.none()
        hits = s3.faults.met[before:]
        met = []
        for kind, method, match, _ in orders:
            paths = [path.partition("?")[0] for what, verb, path in hits if what == kind and verb == method]
            paths = [path for path in paths if match in path]
            if paths:
                met.append((f"bucket: {kind}", f"{len(paths)} x {method} {paths[0].partition('/run-')[2][4:]}"))
        self.missed += len(orders) - len(met)
        full = any(kind == "507" for kind, *_ in orders)
        refusal = (1, "is full .*make room and run the same command again") if full else None
        mend = self.small_audit(url) if full else None
        self.finish(met, url, ended, refusal=refusal, mend=mend, calm=self.small_bytes)

    def outage(self, s3: FaultyS3, seconds: float | None) -> None:
        """Have the bucket unreachable for so many seconds, or until patience ends, from a random request on."""
        self._count += 1
        url = f"{s3.url}/run-{self._count:03d}"
        patience = {} if seconds else {"MICROTOME_PATIENCE": "2"}
        begin = s3.faults.requests + self.dice.randint(60, 180)
        audit = self.commands.start(self.small_audit(url), patience)
        audit.wait(lambda: s3.faults.requests > begin)
        before = len(s3.faults.met)
        with s3.faults.outage():
            began = time.monotonic()
            audit.wait(lambda: seconds is not None and time.monotonic() - began > seconds)
        ended = audit.wait()
        if len(s3.faults.met) == before:
            self.missed += 1
            return
        what = f"for {seconds:g} s" if seconds else "for longer than patience (2 s)"
        what += f", {len(s3.faults.met) - before} requests cut"
        refusal = None if seconds else (1, "run the same command again when the bucket can be reached")
        mend = None if seconds else self.small_audit(url)
        self.finish([("bucket unreachable", what)], url, ended, refusal=refusal, mend=mend, calm=self.small_bytes)

    def kill_audit_into_bucket(self, s3: FaultyS3) -> None:
        """SIGKILL an audit that writes into a bucket, at a random request."""
        self._count += 1
        url = f"{s3.url}/run-{self._count:03d}"
        begin = s3.faults.requests + self.dice.randint(60, 250)
        audit = self.commands.start(self.small_audit(url))
        audit.wait(lambda: s3.faults.requests > begin)
        ended = audit.kill()
        if ended.code == 0:
            self.missed += 1
            return
        what = f"into a bucket, {len(everything(url))} results written"
        self.finish([("audit ended by SIGKILL", what)], url, ended, mend=self.small_audit(url), calm=self.small_bytes)

    def damage_in_bucket(self, s3: FaultyS3) -> None:
        """Cut an object of a finished run short."""
        self._count += 1
        url = f"{s3.url}/run-{self._count:03d}"
        self.must(self.commands.run(self.small_audit(url)))
        place = open_place(url)
        key = self.dice.choice(sorted(key for key, _ in place.list("arrays.zarr/") if "/c/" in key))
        place.write(key, place.read(key)[:-9])
        found = self.commands.run(["verify", url])
        refusal = (4, rf"(?s){re.escape(key)}.*microtome verify .*--repair makes them again")
        repair = ["verify", url, "--repair"]
        self.finish(
            [("bucket: object cut short", key)], url, found, refusal=refusal, mend=repair, calm=self.small_bytes
        )

    # On a cluster

    def kill_workers(self, kills: int) -> None:
        """SIGKILL worker processes of `--cluster processes` at random moments."""
        run = self.new_run()
        audit = self.commands.start([*self.audit(run), "--cluster", "processes", "--workers", "2"])
        struck = []
        for _ in range(kills):
            before = len(list(run.glob("commits/*/0*.json")))
            step = self.dice.randint(1, 4)
            audit.wait(lambda before=before, step=step: len(list(run.glob("commits/*/0*.json"))) >= before + step)
            victims = [worker for worker in workers_of(audit) if worker.is_running()]
            if not audit.running or not victims:
                self.missed += 1
                break
            victim = self.dice.choice(victims)
            victim.kill()
            struck.append(progress_of(run))
        ended = audit.wait()
        self.finish([("worker ended by SIGKILL", at) for at in struck], run, ended)

    def kill_audit_with_workers(self) -> None:
        """SIGKILL an audit that has worker processes: none is left, and the run goes on."""
        run = self.new_run()
        audit = self.commands.start([*self.audit(run), "--cluster", "processes", "--workers", "2"])
        audit.wait(lambda: len(list(run.glob("commits/capture/0*.json"))) >= 2)
        workers = workers_of(audit)
        at = progress_of(run)
        ended = audit.kill()
        gone, alive = psutil.wait_procs(workers, timeout=20)
        if alive or not gone:
            raise AssertionError(f"{len(alive)} of {len(workers)} workers outlive their audit")
        self.finish([("audit with workers ended by SIGKILL", at)], run, ended, mend=self.audit(run))

    def kill_scheduler(self, address: str, kill: Callable[[], None]) -> None:
        """SIGKILL the scheduler of a TCP cluster in the middle of capture."""
        run = self.new_run()
        audit = self.commands.start([*self.audit(run), "--cluster", address])
        audit.wait(lambda: len(list(run.glob("commits/capture/0*.json"))) >= 2)
        at = progress_of(run)
        kill()
        ended = audit.wait()
        refusal = (1, "scheduler at .* was lost.*resume the audit")
        resume = ["audit", "--resume", str(run)]
        self.finish([("scheduler ended by SIGKILL", at)], run, ended, refusal=refusal, mend=resume)


def table(faults: Iterable[Fault]) -> list[dict[str, object]]:
    """How many faults of each kind hit, how many audits went on by themselves, refused, or came out wrong."""
    rows: dict[str, dict[str, object]] = {}
    for fault in faults:
        row = rows.setdefault(fault.kind, {"fault": fault.kind, "hit": 0, BY_ITSELF: 0, REFUSED: 0, "wrong": 0})
        for name in ("hit", fault.ended, *(["wrong"] if fault.wrong else [])):
            row[name] = int(str(row[name])) + 1
    return list(rows.values())
