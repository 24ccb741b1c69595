"""The executor: Snakemake's side. Jobs come in on its thread; all that concerns the cluster happens on one other."""

import atexit
import queue
import shlex
import signal
import threading
import time
from collections.abc import AsyncGenerator, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.utils import format_cli_arg

from snakemake_executor_plugin_submitit.books.records import FOLDER, Books
from snakemake_executor_plugin_submitit.cluster.environment import from_environment
from snakemake_executor_plugin_submitit.cluster.resources import Request, make_request
from snakemake_executor_plugin_submitit.cluster.send import PYTHON
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.head.adopt import identity
from snakemake_executor_plugin_submitit.head.follow import Follower
from snakemake_executor_plugin_submitit.head.lock import HeadLock
from snakemake_executor_plugin_submitit.head.pace import Pace, spoken
from snakemake_executor_plugin_submitit.head.task import Task, label_of, members_of, name_of, outputs_of, resources_of
from snakemake_executor_plugin_submitit.node.inner import MODULE, quoted_for_the_shell
from snakemake_executor_plugin_submitit.node.sources import below, digest, note

_SIGNALS = {signal.SIGINT: "on_interrupt", signal.SIGTERM: "on_terminate", signal.SIGHUP: "on_hangup"}
_LOG_LINES = 40


class Executor(RemoteExecutor):
    """Hands jobs to a `Follower`, and its reports to Snakemake.

    The base class starts the second thread before `__post_init__` runs: until there is a follower, it does nothing.
    """

    _follower: Follower | None = None
    _pace: Pace | None = None

    def __post_init__(self) -> None:
        settings = self.workflow.executor_settings or ExecutorSettings()
        if settings.cluster == "slurm":
            found, said = from_environment(asdict(settings))
            settings = replace(settings, **found)
            for text in said:
                self.say(text)
        self._settings: ExecutorSettings = settings
        self._incoming: queue.Queue[Task] = queue.Queue()
        self._leave = self._signalled = False
        self._listening = False
        self._code: dict[str, list[Path]] = {}
        self._digests: dict[Path, str] = {}
        self._notes: dict[tuple[str, ...], str] = {}
        configs = self.workflow.config_settings.configfiles
        _check_paths([Path.cwd(), self.workflow.main_snakefile, *configs, PYTHON])
        if settings.jobs_per_gpu < 1:
            raise WorkflowError(
                f"expected at least one job a GPU, found --submitit-jobs-per-gpu {settings.jobs_per_gpu}. Say 1 to let "
                "the jobs of a group take turns on it."
            )
        root = Path(self.workflow.persistence.path) / FOLDER
        self._lock_of_head = HeadLock(root / "head.json")
        try:
            self._lock_of_head.acquire()
        except OSError as error:
            raise WorkflowError(
                f"{root}: expected to write there, cannot: {error}. Free the disk, or work elsewhere (--directory). "
                "Jobs of earlier runs go on: squeue --me shows them, their names begin with smk-."
            ) from error
        atexit.register(self._lock_of_head.release)
        if self.workflow.persistence.locked and not self.workflow.execution_settings.lock:
            raise WorkflowError(
                "expected to be the only run that writes these files, found Snakemake's own lock on them: a run "
                "without this executor is under way here, or was killed. Wait for it, or remove the lock: "
                "snakemake --unlock."
            )
        self._read_code()
        self._follower = Follower(Books(root), settings, self._scope(), self)
        self._acknowledge()

    def run_jobs(self, jobs: list[Any]) -> None:
        """Take in the jobs that are ready; equal ones among them become arrays."""
        self._listen()
        if self._pace is None:
            planned = [job for job in self.dag.needrun_jobs() if not job.is_local]
            self._pace = Pace(job.rule.name for job in planned)
        tasks = [self._task(job) for job in jobs]  # all are checked before one is sent
        for task in tasks:
            self.run_job_pre(task.job)
            try:
                task.job.register()
            except OSError as error:  # as with Snakemake's own executors
                self.say(f"{task.title}: Snakemake could not note that it begins ({error}); it is sent all the same")
        for task in tasks:  # at once, so that one look takes them all
            self._incoming.put(task)

    def run_job(self, job: Any) -> None:
        """Take in one job."""
        self.run_jobs([job])

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """One look at everything, on the second thread. Its own books know what is active, not Snakemake's list."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # for sbatch too, which inherits it: no Ctrl-C halfway
        if self._follower is not None:
            try:
                self._follower.look(self._drain())
            except Exception:
                self._follower.leave()  # Snakemake gives up, and leaves its jobs alone
                raise
        for info in list[SubmittedJobInfo]():
            yield info

    async def sleep(self) -> None:
        """Until the next look is due, new jobs are there, or the end has come."""
        if self._follower is None:  # and what else __post_init__ makes is not there yet
            time.sleep(0.05)
            return
        deadline = time.monotonic() + self._settings.poll
        while self.wait and self._incoming.empty() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.05)  # what is put in together is taken out together

    def cancel(self) -> None:
        """End on a signal, as the settings say: cancel the jobs, or leave them.

        Or on an error of Snakemake's own, such as a full disk under .snakemake: nobody asked to end the jobs then.
        """
        leave = self._leave or (self._listening and not self._signalled)
        if leave:
            # At its end Snakemake removes empty folders of outputs: those that the jobs left behind are to write into.
            self.workflow.dag.cleanup_workdir = lambda: None
        super().shutdown()  # the lock is kept until the jobs are gone
        if self._follower is not None and leave:
            self._follower.leave()
        elif self._follower is not None:
            self._follower.cancel_all(self._drain())
        self._lock_of_head.release()

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Called by the base class; `cancel` has done it all."""

    def shutdown(self) -> None:
        """Let the second thread finish what it is doing, and give back the lock."""
        super().shutdown()
        self._lock_of_head.release()

    def format_job_exec(self, job: Any) -> str:
        """The command line, for a shell."""
        with quoted_for_the_shell(PYTHON):
            return str(super().format_job_exec(job))

    def get_python_executable(self) -> str:
        """As the base class finds it, quoted, with the module that runs Snakemake on the node.

        It takes the shell's place: a signal to both must not end the shell first.
        """
        return f"exec {shlex.quote(super().get_python_executable())} -m {MODULE}"

    def get_envvar_declarations(self) -> str:
        """Variables that the workflow declares, quoted for the shell."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.envvars().items()]
        return f"export {' '.join(words)} &&" if words else ""

    def additional_general_args(self) -> str:
        """For the inner Snakemake: it runs its job itself, with no profile of this head's."""
        return "--executor local --workflow-profile none"

    def get_job_args(self, job: Any, **_: Any) -> str:
        """The inner Snakemake uses what the job was given, not the node: the jobs of a group share that.

        Without the base's wait for this head's own temporary folder: an adopted job outlives its head.
        """
        request = self._request(job)
        limits = [f"mem_mb={request.memory_mb}"]
        if not self._settings.no_gpu:  # else it would wait for a GPU for ever
            limits.append(f"gpu={request.gpus * (self._settings.jobs_per_gpu if job.is_group() else 1)}")
        files = list(job.get_wait_for_files())
        return " ".join(
            [
                RealExecutor.get_job_args(self, job, cores=request.cpus),
                format_cli_arg("--resources", limits),
                format_cli_arg("--wait-for-files", files, skip=not files),
            ]
        )

    def say(self, text: str) -> None:
        """A line on Snakemake's console."""
        self.logger.info(f"submitit: {text}")

    def makes(self, outputs: list[str]) -> bool:
        """Whether the workflow, as it is now configured, could make these files."""
        return all(any(rule.is_producer(path) for rule in self.workflow.rules) for path in outputs)

    def submitted(self, task: Task) -> None:
        """A job has a place on the cluster."""
        self.workflow.scheduler.submit_callback(task.job)

    def succeeded(self, task: Task, seconds: float) -> None:
        """A job is done."""
        assert self._pace is not None
        for single in members_of(task.job):
            self._pace.done(single.rule.name, seconds / len(members_of(task.job)))
        left = self._pace.seconds_left()
        rest = f"{self._pace.left} job(s) left" + (f", about {spoken(left)}" if left else "")
        self.say(f"job {task.id} ({task.title}) done after {spoken(seconds)}; {rest}")
        self.report_job_success(SubmittedJobInfo(task.job, external_jobid=task.id))

    def failed(self, task: Task, text: str, log: Path | None, end: str) -> None:
        """A job has failed for good."""
        message = f"{text}\n"
        if end:
            last = "\n    ".join(end.splitlines()[-_LOG_LINES:])
            message += f"last lines of {log}:\n    {last}\n"
        if task.job.is_group():  # Snakemake prints no message of a group's
            self.logger.error(f"Error in group {task.name}:\n    {message}")
        info = SubmittedJobInfo(task.job, external_jobid=None if task.submission is None else task.id)
        self.report_job_error(info, msg=message, aux_logs=[str(log)] if log else [])

    def _drain(self) -> list[Task]:
        tasks = []
        while not self._incoming.empty():
            tasks.append(self._incoming.get())
        return tasks

    def _task(self, job: Any) -> Task:
        name, outputs = name_of(job), outputs_of(job)
        _check_paths([*outputs, *job.get_wait_for_files()])
        return Task(
            job=job,
            key=identity(job, self._triggers()),
            name=name,
            label=label_of(job),
            outputs=outputs,
            command=self.format_job_exec(job),
            request=self._request(job),
            sources=self._note_of_sources(job),
            may_restart=job.restart_times >= job.attempt,
        )

    def _read_code(self) -> None:
        """Learn what the code of each rule is now, when Snakemake has just read it."""
        root = Path(self.workflow.main_snakefile).parent
        common = [Path(str(path.get_path_or_uri(secret_free=True))) for path in self.workflow.included]
        common += [Path(path) for path in self.workflow.config_settings.configfiles]
        for name in filter(None, self._settings.sources.split(",")):
            common += below(root / name.strip())
        for rule in self.workflow.rules:
            own = [Path(str(rule.basedir)) / str(rule.script)] if rule.script is not None else []
            files = [path.absolute() for path in [*common, *own] if path.is_file()]
            self._digests |= {path: digest(path) for path in files if path not in self._digests}
            self._code[rule.name] = files

    def _note_of_sources(self, job: Any) -> str:
        """The file in which the node finds what the job's code was; empty where it cannot be written."""
        rules = tuple(sorted({single.rule.name for single in members_of(job)}))
        if rules not in self._notes:
            noted = {str(path): self._digests[path] for rule in rules for path in self._code[rule]}
            try:
                self._notes[rules] = str(note(noted, Path(self.workflow.persistence.path) / FOLDER))
            except OSError as error:
                self.say(f"what the code of {', '.join(rules)} is cannot be noted ({error}): edits will not be told")
                return ""
        return self._notes[rules]

    def _triggers(self) -> set[str]:
        """What Snakemake reruns a finished job for: a live one is kept or replaced for the same."""
        return {str(trigger.item_to_choice()) for trigger in self.workflow.rerun_triggers}

    def _request(self, job: Any) -> Request:
        described = f"{name_of(job)} ({', '.join(outputs_of(job))})"
        resources = resources_of(job, self._settings.jobs_per_gpu)
        return make_request(described, resources, resources.get("_cores", 1), self._settings)

    def _scope(self) -> str:
        """What this head was asked to work on: it cancels what the plan no longer has among jobs of the same alone."""
        settings = self.workflow.config_settings
        return repr(
            (str(self.workflow.main_snakefile), sorted(map(str, settings.configfiles)), str(settings.overwrite_config))
        )

    def _acknowledge(self) -> None:
        """Take note of jobs that ended well while no head was there.

        Snakemake's metadata of them are written now, so that later edits are noticed. Where the settings were edited
        meanwhile, the files on disk are the old ones: they are marked for a rerun, which needs a fresh start.
        """
        assert self._follower is not None
        stale = []
        jobs = {tuple(outputs_of(job)): job for job in self.dag.jobs}
        needed = [str(path) for job in self.dag.needrun_jobs() for path in job.output]
        for submission, index in self._follower.finished_alone(needed):
            member = submission.members[index]
            job = jobs.get(tuple(member.outputs))
            if job is None or job in self.dag.needrun_jobs():
                continue
            if self._task(job).key == member.key:
                self.workflow.async_run(self.workflow.persistence.finished(job))
            else:
                self.workflow.persistence.started(job)
                stale += member.outputs
        if stale:
            raise WorkflowError(
                f"while no head was running, jobs finished with other settings than the present ones: "
                f"{' '.join(stale)}. They are marked now: run the same command again, and only they are made again."
            )

    def _listen(self) -> None:
        """Signals end this head as the settings say. Set late: Snakemake sets its own after making the executor."""
        if self._listening or threading.current_thread() is not threading.main_thread():
            return
        self._listening = True
        for number in _SIGNALS:
            signal.signal(number, self._stop)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._signalled = True
        self._leave = getattr(self._settings, _SIGNALS[signal.Signals(number)]) == "leave"
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)  # a second one must not break off what the first began
        raise KeyboardInterrupt


def _check_paths(paths: Iterable[object]) -> None:
    """Snakemake puts these into commands that a shell reads; SLURM expands % in the names of logs."""
    for path in paths:
        found = sorted(set("$`\\%\n") & set(str(path)))
        if found:
            raise WorkflowError(
                f"expected paths without $ ` \\ % or a line's end, found {path}: a shell or SLURM would read them "
                "otherwise. Rename it, or work elsewhere (--directory). Nothing was submitted."
            )
