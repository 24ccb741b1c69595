"""SLURM's answers: read when they make sense, taken for silence when they do not."""

import pytest

from snakemake_executor_plugin_submitit.cluster.slurm import Row, Slurm, ask_config, is_alive, is_name, is_over

HEADER = "JOBID|STATE|NAME|REASON"
PAST = "JobID|State"


def says(*lines: str, code: int = 0) -> str:
    return "\n".join(f"printf '%s\\n' '{line}'" for line in lines) + f"\nexit {code}"


def test_the_queue_is_read_element_by_element(programs) -> None:
    programs("squeue", says(HEADER, "12_3|RUNNING|smk-a|None", "14|PENDING|smk-b|(Resources, | and more)"))
    rows = Slurm().queue()
    assert rows is not None
    assert (rows["12_3"].state, rows["12_3"].name) == ("RUNNING", "smk-a")
    assert rows["14"].reason == "(Resources, | and more)"
    assert is_alive(rows, "14", "smk-b")
    assert not is_alive(rows, "14", "smk-of-another-cluster")  # ids recur where a cluster is set up again
    assert not is_alive(rows, "15", "smk-b")


@pytest.mark.parametrize(
    "answer",
    [
        says(code=1),
        says(),
        says("slurm_load_jobs error: Unable to contact slurm controller"),
        says("12|RUNNING|smk-a|None"),
        says("<html>proxy error</html>", HEADER),
        says(HEADER, code=3),
    ],
)
def test_nonsense_is_silence_and_not_an_empty_queue(programs, answer: str) -> None:
    programs("squeue", answer)
    assert Slurm().queue() is None


@pytest.mark.parametrize("before", [[], ["CLUSTER: one"]])
def test_no_row_of_somebody_else_silences_the_queue(programs, before: list[str]) -> None:
    strange = ["7|RUNNING|a", "b|c|None", "8|RUNNING", "", "9|NEW_STATE|other|None", "10|RUNNING|a|12_3|FAILED|x|y"]
    programs("squeue", says(*before, HEADER, *strange, "12_3|RUNNING|smk-a|None", "", *before, HEADER))
    assert Slurm().queue() == {"12_3": Row("RUNNING", "smk-a", "None")}


@pytest.mark.parametrize("state", ["RESV_DEL_HOLD", "EXPEDITING", "POWER_UP_NODE", "REQUEUE_HOLD", "PENDING"])
def test_a_state_that_is_not_known_is_alive(programs, state: str) -> None:
    programs("squeue", says(HEADER, f"12|{state}|smk-a|None", "13|OUT_OF_MEMORY|smk-b|None"))
    rows = Slurm().queue()
    assert rows is not None
    assert (is_alive(rows, "12", "smk-a"), is_alive(rows, "13", "smk-b")) == (True, False)
    assert not is_over(state)


def test_an_empty_queue_is_an_answer(programs) -> None:
    programs("squeue", says(HEADER))
    assert Slurm().queue() == {}


def test_no_slurm_is_silence(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    slurm = Slurm()
    assert slurm.queue() is None
    assert slurm.past(["1"]) is None
    assert slurm.known("1", "x") is None
    assert slurm.max_array_size is None
    assert not slurm.cancel(["1"])


def test_the_accountings_words_are_kept(programs) -> None:
    programs("sacct", says(PAST, "12_3|CANCELLED by 1000", "13|OUT_OF_ME+"))
    past = Slurm().past(["12_3", "13"])
    assert past is not None
    assert (past["12_3"].state, past["12_3"].words) == ("CANCELLED", "CANCELLED by 1000")
    assert past["13"].state == "OUT_OF_ME"


def test_costs_are_those_of_each_attempt(programs) -> None:
    programs(
        "sacct",
        says(
            "JobID|State|Start|ElapsedRaw|TotalCPU|MaxRSS|AllocTRES",
            "12_3|NODE_FAIL|1000|60|00:01.500||billing=1,cpu=2,gres/gpu=2",
            "12_3.batch|CANCELLED|1000|60|00:01|2048K|",
            "12_3|COMPLETED|2000|3700|1-01:02:03||cpu=2",
            "12_3.0|COMPLETED|2000|3700|1:00|1.5G|",
            "12_30|COMPLETED|2000|1|1:00|9G|",
        ),
    )
    lost, done = Slurm().costs("12_3") or []
    assert (lost.state, lost.elapsed_s, lost.cpu_s, lost.gpus, lost.max_rss_mb) == ("NODE_FAIL", 60, 1.5, 2, 2)
    assert (done.started, done.cpu_s, done.gpus, done.max_rss_mb) == (2000, 90123, None, 1536)


@pytest.mark.parametrize(
    ("said", "gpus"),
    [
        ("cpu=2,gres/gpu=2,gres/gpu:a100=2", 2),
        ("cpu=2,gres/gpu:a100=2,gres/gpu:v100=1", 3),
        ("cpu=2,mem=1G", None),  # the site counts none, as is SLURM's default: no word on how many there were
    ],
)
def test_gpus_are_counted_as_the_site_counts_them(programs, said: str, gpus: int | None) -> None:
    header = "JobID|State|Start|ElapsedRaw|TotalCPU|MaxRSS|AllocTRES"
    programs("sacct", says(header, f"12|COMPLETED|1000|60|00:01||{said}"))
    assert [one.gpus for one in Slurm().costs("12") or []] == [gpus]


def test_a_person_is_given_a_command_that_cancels_all_of_it() -> None:
    assert Slurm().order({"7", "8_1"}, ["smk-x"]) == "scancel 7 8_1; scancel --name=smk-x"
    assert Slurm().order(set(), ["smk-x"]) == "scancel --name=smk-x"


def test_the_controllers_word_on_one_job(programs) -> None:
    programs("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert Slurm().known("9", "x") == "gone"
    programs("scontrol", "echo 'Job 7_3 not found'; exit 1")  # an element that was purged while its siblings live
    assert Slurm().known("7_3", "x") == "gone"
    programs("scontrol", says("JobId=9 JobName=x JobState=RUNNING Reason=None"))
    assert Slurm().known("9", "x") == "RUNNING"
    assert Slurm().known("9", "of-an-earlier-cluster") == "gone"
    programs("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert Slurm().known("9", "x") is None
    assert [is_over(word) for word in ("gone", "FAILED", "RUNNING", None)] == [True, True, False, False]


@pytest.mark.parametrize(("kind", "there"), [("accounting_storage/none", False), ("accounting_storage/slurmdbd", True)])
def test_the_sites_settings_are_asked_for_once(programs, kind: str, there: bool) -> None:
    programs("scontrol", says(f"AccountingStorageType   = {kind}", "MaxArraySize            = 1001"))
    slurm = Slurm()
    assert slurm.max_array_size == 1000  # indices are below MaxArraySize
    settings = "SchedulerParameters     = bf_continue,max_array_tasks=100,default_queue_depth=50"
    programs("scontrol", says("MaxArraySize            = 1001", settings))
    assert Slurm().max_array_size == 100
    programs("scontrol", "exit 1")
    assert slurm.accounting is there


@pytest.mark.parametrize(
    "answer",
    [
        says("MaxArraySize            = 1001", code=1),
        says("AccountingStorageType   = accounting_storage/none"),
        says("MaxArraySize            = many"),
        says("<html>a proxy = an error</html>"),
    ],
)
def test_settings_that_make_no_sense_are_silence(programs, answer: str) -> None:
    programs("scontrol", answer)
    assert ask_config()[1] == {}
    assert Slurm().max_array_size is None
    assert Slurm().accounting is None


@pytest.mark.parametrize("kind", ["accounting_storage/none", "(null)", "none", "N/A", ""])
def test_no_accounting_has_many_names(programs, kind: str) -> None:
    programs("scontrol", says(f"AccountingStorageType   = {kind}", "MaxArraySize            = 1001"))
    assert Slurm().accounting is False


@pytest.mark.parametrize(
    "text", ["cpu", "cpu,long", "a100|h100&ib", "[rack1*2&rack2*4]", "(a|b)&c", "gpu:a100:1", "x@y+z=1"]
)
def test_names_and_expressions_of_slurm_are_taken(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", "-p", ",a", "a b", "a;b", "$(a)", "`a`", "a\nb", "a\n", "{a}", "a'", "ü", "a/b", "%a", "#a"]
)
def test_what_somebody_could_read_otherwise_is_no_name(text: str) -> None:
    assert not is_name(text)
