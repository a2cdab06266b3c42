"""The simulation of many clients: against queueing theory, the embedded limiter, and itself."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from lsst.daf.butler_dcache.bench.simulation import validation
from lsst.daf.butler_dcache.bench.simulation.limiter import DoorLimiter
from lsst.daf.butler_dcache.bench.simulation.patterns import OURS, UPSTREAM, Ask, Operation, Pattern
from lsst.daf.butler_dcache.bench.simulation.policies import POLICIES
from lsst.daf.butler_dcache.bench.simulation.queues import Link, Processor, Slots, new_environment
from lsst.daf.butler_dcache.bench.simulation.run import estimate, simulate, truncation
from lsst.daf.butler_dcache.bench.simulation.scenarios import (
    PRESETS,
    QUANTUM,
    Fault,
    Scenario,
    Task,
    crowd,
    dr1,
    parse_fault,
)
from lsst.daf.butler_dcache.bench.simulation.site import SiteSpec
from lsst.daf.butler_dcache.bench.simulation.study import Study, study
from lsst.daf.butler_dcache.bench.simulation.times import (
    DEFAULTS,
    EMBEDDED,
    RECORDED,
    ServiceTimesError,
    service_times,
)
from lsst.daf.butler_dcache.cli.bench_simulate import command
from lsst.daf.butler_dcache.embedded.limiter import RateLimiter

OURSELVES = POLICIES["ours"]


def _mean_wait(arrivals, service, servers):
    """Mean time that work waits for a processor, after the first fifth of it."""
    processor = Processor(servers)
    waits = []
    for now, seconds in zip(arrivals, service, strict=True):
        waits.append(processor.finish(now, seconds) - seconds - now)
    return sum(waits[len(waits) // 5 :]) / (len(waits) - len(waits) // 5)


def _poisson(rate, count, seed):
    draw = random.Random(seed)
    return list(itertools.accumulate(draw.expovariate(rate) for _ in range(count)))


class TestQueueingTheory:
    @pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
    def test_one_server_with_exponential_times_waits_as_long_as_theory_says(self, load):
        count, draw = 100_000, random.Random(7)
        wait = _mean_wait(_poisson(load, count, 1), [draw.expovariate(1.0) for _ in range(count)], 1)
        assert wait == pytest.approx(load / (1 - load), rel=0.08)  # M/M/1

    def test_one_server_with_fixed_times_waits_half_as_long(self):
        load, count = 0.8, 100_000
        wait = _mean_wait(_poisson(load, count, 2), [1.0] * count, 1)
        assert wait == pytest.approx(load / (2 * (1 - load)), rel=0.06)  # M/D/1, Pollaczek-Khinchine

    def test_several_servers_with_exponential_times(self):
        servers, load, count, draw = 4, 0.65, 100_000, random.Random(8)
        offered = servers * load
        last = offered**servers / math.factorial(servers) / (1 - load)
        queued = last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)  # Erlang C
        wait = _mean_wait(_poisson(offered, count, 3), [draw.expovariate(1.0) for _ in range(count)], servers)
        assert wait == pytest.approx(queued / (servers * (1 - load)), rel=0.08)

    def test_several_servers_with_fixed_times(self):
        """M/D/c by the approximation of Cosmetatos (1975), which is good to a percent or two here."""
        servers, load, count, draw = 4, 0.8, 100_000, random.Random(3)
        arrivals = _poisson(servers * load, count, 4)
        exponential = _mean_wait(arrivals, [draw.expovariate(1.0) for _ in range(count)], servers)
        fixed = _mean_wait(arrivals, [1.0] * count, servers)
        share = 0.5 * (
            1 + (1 - load) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * load * servers)
        )
        assert fixed / exponential == pytest.approx(share, rel=0.08)

    def test_work_that_was_done_is_what_was_taken_less_what_is_left(self):
        processor = Processor(2)
        for _ in range(3):
            processor.finish(0.0, 4.0)
        assert processor.left(1.0) == 3.0 + 7.0
        assert processor.done(1.0) == 2.0
        processor.forget(1.0)
        assert processor.done(1.0) == 2.0
        assert processor.finish(1.0, 1.0) == 2.0

    def test_a_closed_loop_obeys_littles_law_and_the_capacity_of_the_door(self):
        """20 clients without pause at one door of 2 processors and 10 ms a request: 200 a second."""
        site = SiteSpec(doors=1, pools=1, door_processors=2, tls=False, round_trip_seconds=0, limiter_rate=0)
        times = replace(RECORDED, door={**RECORDED.door, "propfind": 0.010}, variation=1.0)
        scenario = Scenario("", "", site, Task((Operation("look"),)), 20, 1, 2.0, 60.0)
        found = simulate(scenario, replace(OURS, is_one_process=True), POLICIES["none"], times, 1)
        assert found.figures["tasks"] == pytest.approx(200.0, rel=0.03)
        assert found.figures["door utilisation"] == pytest.approx(1.0, abs=0.01)
        assert found.figures["tasks"] * found.figures["task mean"] == pytest.approx(20.0, rel=0.02)


class TestLink:
    def test_transfers_share_equally_and_the_rest_gets_what_becomes_free(self):
        environment = new_environment()
        link = Link(environment, 100.0)
        ends = {}

        def send(name, at, size):
            yield environment.timeout(at)
            came = yield link.send(size)
            ends[name] = (environment.now, came)

        for name, at, size in (("a", 0.0, 300.0), ("b", 1.0, 100.0), ("c", 10.0, 50.0)):
            environment.process(send(name, at, size))
        environment.run()
        # a alone for 1 s, then both at 50 until b ends, then a has the rest.
        assert ends["b"] == (pytest.approx(3.0), True)
        assert ends["a"] == (pytest.approx(4.0), True)
        assert ends["c"] == (pytest.approx(10.5), True)
        assert link.carried == pytest.approx(450.0)

    def test_a_slower_link_takes_longer_and_a_dropped_one_says_so(self):
        environment = new_environment()
        link = Link(environment, 100.0)
        slow, cut = link.send(100.0), []

        def disturb():
            yield environment.timeout(0.5)
            link.set_rate(10.0)
            yield slow
            assert environment.now == pytest.approx(5.5)
            event = link.send(100.0)
            yield environment.timeout(1.0)
            link.drop()
            cut.append((yield event))

        environment.process(disturb())
        environment.run()
        assert cut == [False]

    def test_as_many_transfers_as_a_link_carries(self):
        environment = new_environment()
        link, draw, done = Link(environment, 1e6), random.Random(1), []

        def send(at, size):
            yield environment.timeout(at)
            yield link.send(size)
            done.append(size)

        total = 0.0
        for _ in range(500):
            size = draw.expovariate(1 / 1e5)
            total += size
            environment.process(send(draw.random() * 10, size))
        environment.run()
        assert len(done) == 500
        assert link.carried == pytest.approx(total, rel=1e-6)
        assert environment.now >= total / 1e6


def test_slots_are_given_in_the_order_of_asking():
    environment = new_environment()
    slots = Slots(environment, 1, queue=2)
    assert slots.take() is None
    first, second = slots.take(), slots.take()
    with pytest.raises(OverflowError):
        slots.take()
    assert slots.give_up(first)
    slots.free()
    assert second.triggered
    assert not slots.give_up(second)
    assert slots.used == 1
    slots.free()
    assert slots.used == 0


class TestLimiter:
    @pytest.mark.parametrize("seed", range(5))
    def test_it_decides_as_the_embedded_one(self, seed):
        draw, now = random.Random(seed), [0.0]
        ours, theirs = DoorLimiter(), RateLimiter(clock=lambda: now[0])
        clients = ["a", "b", "c"]
        for _ in range(6000):
            now[0] += (
                draw.choice((0.0, 0.0005, 0.001, 0.003, 0.02))
                if draw.random() < 0.998
                else draw.choice((1.5, 12.0, 25.0))
            )
            client = draw.choice(clients)
            assert ours.admits(client, now[0]) == (theirs.refusal(client) is None)
            assert ours.debt(client, now[0]) == pytest.approx(theirs.debt(client), abs=1e-9)
            assert ours.is_warm(client, now[0]) == theirs.is_warm(client)
            if draw.random() < 0.0008:
                ours.count_unauthorized(client, now[0])
                theirs.count_unauthorized(client)

    def test_a_client_begins_with_an_empty_bucket(self):
        limiter = DoorLimiter()
        assert limiter.admits("a", 100.0)
        assert not limiter.admits("a", 100.003)
        assert limiter.admits("a", 100.0041)

    def test_a_second_is_kept_and_no_more(self):
        limiter = DoorLimiter()
        assert limiter.admits("a", 0.0)
        assert 250 <= sum(limiter.admits("a", 5.0) for _ in range(400)) <= 251

    def test_the_third_401_blocks_for_10_seconds_and_an_old_one_does_not_count(self):
        limiter = DoorLimiter()
        for now in (0.0, 25.0, 26.0):
            limiter.count_unauthorized("a", now)
        assert limiter.admits("a", 26.1)
        limiter.count_unauthorized("a", 27.0)
        assert not limiter.admits("a", 36.9)
        assert limiter.admits("b", 30.0)
        assert limiter.admits("a", 37.1)


class TestPatterns:
    """The request table: door and pool requests of each operation."""

    @pytest.mark.parametrize(
        ("operation", "ours", "upstream"),
        [
            (Operation("read", 10**7), (1, 1), (1, 1)),
            (Operation("write", 10**7), (2, 1), (2, 1)),
            (Operation("write", 1000), (2, 0), (2, 1)),
            (Operation("parts", 10**6, 3), (1, 3), (4, 3)),
            (Operation("look"), (1, 0), (1, 0)),
            (Operation("remove"), (1, 0), (2, 0)),
        ],
    )
    def test_requests(self, operation, ours, upstream):
        for pattern, (door, pool) in ((OURS, ours), (UPSTREAM, upstream)):
            asks = pattern.requests(operation)
            assert [sum(ask.server == where for ask in asks) for where in ("door", "pool")] == [door, pool]
            # Each mover that is started is ended, and the bytes go where they shall.
            assert sum(ask.starts_mover for ask in asks) == sum(ask.ends_mover for ask in asks)
            assert sum(ask.size for ask in asks) >= operation.size - operation.count

    def test_what_nobody_does(self):
        with pytest.raises(ValueError, match="no client does 'paint'"):
            OURS.requests(Operation("paint"))


def _small(**changes):
    site = SiteSpec(doors=1, pools=2, door_processors=4, movers=10)
    return Scenario(
        "small", "small", site, replace(QUANTUM, compute_seconds=5.0), 40, 4, 5.0, 30.0, **changes
    )


class TestSimulation:
    @pytest.mark.parametrize("pattern", [OURS, UPSTREAM])
    def test_the_same_seed_gives_the_same_figures_and_another_does_not(self, pattern):
        scenario, policy = _small(), POLICIES[pattern.name]
        first = simulate(scenario, pattern, policy, RECORDED, 5)
        assert first == simulate(scenario, pattern, policy, RECORDED, 5)
        assert first.figures != simulate(scenario, pattern, policy, RECORDED, 6).figures

    def test_what_comes_out_is_what_the_cores_can_do(self):
        found = simulate(_small(), OURS, OURSELVES, EMBEDDED, 1)
        per_core = 5.0 + found.figures["task mean"]
        assert found.figures["tasks"] == pytest.approx(40 / per_core, rel=0.1)
        assert found.figures["written files"] == pytest.approx(3 * found.figures["tasks"], rel=0.05)
        assert found.figures["failed tasks"] == found.figures["refused"] == 0
        assert found.is_steady

    def test_no_mover_slot_is_lost(self):
        """Whatever goes wrong: when all is over, nobody has one."""
        for kind, name in itertools.product(("door-restart", "pool-down", "bad-token"), ("ours", "upstream")):
            base = _small(faults=(Fault(kind, 2.0, 3.0),))
            scenario = replace(
                base,
                task=replace(QUANTUM, compute_seconds=0.5, times=8),
                site=replace(base.site, movers=1, mover_patience_seconds=2.0),
                window_seconds=200.0,
                warm_up_seconds=0.0,
            )
            found = simulate(scenario, OURS, POLICIES[name], RECORDED, 2)
            assert found.figures["tasks in all"] + found.figures["failed tasks in all"] == 40 * (
                8 + 1
            )  # one amid
            assert found.figures["most movers of a pool"] > 0
            assert found.figures["movers at the end"] == found.figures["threads at the end"] == 0

    def test_a_door_that_is_gone_costs_our_client_nothing_where_there_is_another(self):
        fault = Fault("door-restart", 5.0, 10.0)
        scenario = replace(_small(), site=SiteSpec(doors=2, pools=2, door_processors=4), faults=(fault,))
        ours = simulate(scenario, OURS, OURSELVES, RECORDED, 1)
        nothing = simulate(scenario, OURS, POLICIES["none"], RECORDED, 1)
        assert ours.figures["failed tasks"] == 0
        assert ours.figures["asked the next door"] > 0
        assert nothing.figures["failed tasks"] > 0

    def test_the_only_door_is_gone_and_no_task_that_has_spoken_with_it_knows(self):
        """Whoever is about to speak with it for the first time fails, as long as it is gone."""
        base = _small(faults=(Fault("door-restart", 5.0, 20.0),))
        scenario = replace(base, task=replace(QUANTUM, compute_seconds=60.0))
        ours = simulate(scenario, OURS, OURSELVES, RECORDED, 1)
        upstream = simulate(scenario, OURS, POLICIES["upstream"], RECORDED, 1)
        assert ours.figures["failed tasks"] == 0
        assert ours.figures["tasks"] > 0
        assert upstream.figures["failed tasks"] > 0
        gone = replace(scenario, faults=(Fault("door-restart", 5.0, 200.0),), window_seconds=120.0)
        assert simulate(gone, OURS, OURSELVES, RECORDED, 1).figures["failed tasks"] > 0

    def test_who_reads_from_a_pool_that_is_gone_waits_until_it_is_back(self):
        base = _small(faults=(Fault("pool-down", 3.0, 4.0),))
        task = Task((Operation("read", 10**6),), compute_seconds=0.5)
        site = replace(base.site, pools=1)
        scenario = replace(base, task=task, site=site, warm_up_seconds=0.0, window_seconds=12.0)
        found = simulate(scenario, OURS, OURSELVES, RECORDED, 1)
        done = dict(zip(found.series["at"], found.series["tasks"], strict=True))
        assert found.figures["failed tasks"] == 0
        assert max(found.series["cores waiting"]) == 40
        assert max(rate for at, rate in done.items() if 5.5 < at < 6.9) == 0
        assert max(rate for at, rate in done.items() if at > 7) > 40

    def test_a_refused_credential_blocks_the_host_of_who_goes_on_showing_it(self):
        """Once per process, as our client does it, is enough too where processes are short."""
        scenario = replace(_small(faults=(Fault("bad-token", 2.0, 20.0),)), hosts=1)
        found = simulate(scenario, UPSTREAM, POLICIES["upstream"], RECORDED, 1)
        assert found.figures["401"] > 0
        assert found.figures["refused"] > 0

    def test_a_crowd_that_is_paced_is_never_refused_and_one_that_is_not_is_slower(self):
        ours = simulate(crowd(), OURS, OURSELVES, EMBEDDED, 1).figures
        upstream = simulate(crowd(), UPSTREAM, POLICIES["upstream"], EMBEDDED, 1).figures
        assert ours["refused in all"] == 0
        # Measured at the embedded dCache: 246 and 192 a second (decision page "pacing").
        assert ours["door requests"] == pytest.approx(246, rel=0.05)
        assert upstream["door requests"] == pytest.approx(192, rel=0.20)
        assert upstream["refused in all"] == pytest.approx(502, rel=0.30)

    def test_a_slice_of_a_site_behaves_like_the_whole(self):
        whole = replace(dr1(), cores=1200, hosts=20, warm_up_seconds=5.0, window_seconds=40.0)
        figures = [simulate(one, OURS, OURSELVES, RECORDED, 1).figures for one in (whole, whole.sliced(4))]
        for name in ("door utilisation", "network utilisation", "limiter utilisation"):
            assert figures[1][name] == pytest.approx(figures[0][name], rel=0.12)
        assert figures[1]["read p50"] == pytest.approx(figures[0]["read p50"], rel=0.12)

    def test_the_data_release_asks_what_it_is_said_to_ask(self):
        """91 files and 1.5 GB a second, by arithmetic."""
        scenario = dr1()
        cycles = scenario.cores / (scenario.task.compute_seconds + 1.0)
        assert cycles * scenario.task.written_files == pytest.approx(91, rel=0.02)
        assert cycles * scenario.task.written_bytes == pytest.approx(1.5e9, rel=0.02)
        assert scenario.task.read_bytes > 0


class TestStatistics:
    def test_an_interval_is_students(self):
        found = estimate([1.0, 2.0, 3.0])
        assert (found.mean, found.high - found.mean) == (2.0, pytest.approx(4.303 / math.sqrt(3), rel=1e-3))
        assert estimate([4.0]).low == estimate([4.0]).high == 4.0

    def test_a_beginning_that_is_not_steady_is_cut_off(self):
        draw = random.Random(1)
        rising = [float(value) for value in range(0, 100, 5)]
        assert 18 <= truncation([*rising, *(100 + draw.gauss(0, 3) for _ in range(200))]) <= 30
        assert truncation([draw.gauss(5, 1) for _ in range(200)]) < 60

    def test_what_never_becomes_steady_is_known_by_its_half(self):
        assert truncation([float(value) for value in range(100)]) == 50


class TestServiceTimes:
    @pytest.mark.parametrize("times", DEFAULTS.values())
    def test_they_can_be_written_and_read(self, times, tmp_path):
        path = tmp_path / "times.json"
        path.write_text(json.dumps(times.document()))
        assert service_times(str(path)) == times
        assert service_times(times.name) is times

    def test_those_of_a_run_are_the_processor_time_of_a_request(self, tmp_path):
        sample = {"server_cpu_seconds": 2.0, "counts": {"door_requests": 1000}}
        result = {
            "target": "embedded",
            "work": {"operation": "look", "size_bytes": 1},
            "peers": {"ours": {"samples": [sample, {**sample, "server_cpu_seconds": 3.0}]}},
        }
        document = {
            "schema": "dcache-butler-bench",
            "schema_version": 2,
            "targets": {"embedded": {"title": "embedded dCache", "is_dcache": False}},
            "results": [result],
        }
        path = tmp_path / "results.json"
        path.write_text(json.dumps(document))
        found = service_times(str(path))
        assert found.door["propfind"] == pytest.approx(0.002)
        assert found.door["put"] / found.door["get"] == pytest.approx(
            RECORDED.door["put"] / RECORDED.door["get"]
        )
        assert not found.is_dcache
        assert "not measured" in found.notes[0]
        # A server elsewhere: what is known is how long it took to answer.
        summary = {"phases": {"door": 0.030}, "requests_per_operation": {"door": 2.0}}
        result["peers"] = {
            "ours": {"samples": [{"server_cpu_seconds": 0.0, "counts": None}], "summary": summary}
        }
        document["targets"] = {"davs://door/": {"title": "a door", "is_dcache": True}}
        path.write_text(json.dumps(document))
        found = service_times(str(path))
        assert found.door["propfind"] == pytest.approx(0.015)
        assert found.is_dcache
        assert "from afar" in found.notes[1]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("no JSON", "is not JSON"),
            ("[1]", "holds no service times"),
            ('{"schema": "other"}', "its schema is 'other'"),
            (
                '{"schema": "dcache-butler-bench", "schema_version": 1}',
                "schema version 1, this release reads 2",
            ),
            (
                '{"schema": "dcache-butler-bench", "schema_version": 2, "results": []}',
                "no time of a door's request",
            ),
            ('{"schema": "dcache-butler-service-times", "schema_version": 7}', "schema version 7"),
            ('{"schema": "dcache-butler-service-times", "schema_version": 1, "new": 1}', "new"),
        ],
    )
    def test_files_that_hold_none(self, tmp_path, text, says):
        path = tmp_path / "file.json"
        path.write_text(text)
        with pytest.raises(ServiceTimesError, match=says):
            service_times(str(path))

    def test_times_must_be_times(self, tmp_path):
        with pytest.raises(ServiceTimesError, match="No such file"):
            service_times(str(tmp_path / "none"))
        with pytest.raises(ServiceTimesError, match="-1"):
            replace(EMBEDDED, door={**EMBEDDED.door, "get": -1.0})
        with pytest.raises(ServiceTimesError, match="no time of the pool for: range"):
            replace(EMBEDDED, pool={"get": 1.0, "put": 1.0})


class TestCommand:
    def test_a_crowd_is_reported_in_full(self, tmp_path):
        done = CliRunner().invoke(
            command, ["crowd", "--repetitions", "1", "--cores", "8", "--out", str(tmp_path / "out")]
        )
        assert done.exit_code == 0, done.output
        document = json.loads((tmp_path / "out/simulation.json").read_text())
        assert (document["schema"], document["schema_version"]) == ("dcache-butler-simulation", 1)
        page = (tmp_path / "out/report.html").read_text()
        assert page.count("<svg") == 2
        assert "<script" not in page
        assert "http://" not in page.replace("http://www.w3.org/", "")
        for text in (page, (tmp_path / "out/summary.md").read_text()):
            assert "no figure is that of a dCache" in text
        assert (tmp_path / "out/together.svg").read_text().startswith("<svg")
        assert not list((tmp_path / "out").glob("*.part"))

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["paint"], "is not one of 'dr1'"),
            (["--cores", "0"], "0 is not in the range"),
            (["--hosts", "5000"], "3000 cores on 5000 hosts"),
            (["--fault", "flood@1+1"], "'flood@1\\+1' is no fault"),
            (["--fault", "pool-down:99@1+1"], "there are 20"),
            (["--pool-bandwidth", "0"], "0.0 is not in the range"),
            (["--service-times", "/nowhere"], "/nowhere: No such file"),
        ],
    )
    def test_bad_input_is_told(self, arguments, says):
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code != 0
        assert re.search(says, done.output), done.output

    def test_a_report_that_cannot_be_written_is_told(self, tmp_path):
        (tmp_path / "file").write_text("")
        done = CliRunner().invoke(
            command, ["crowd", "--repetitions", "1", "--cores", "2", "--out", str(tmp_path / "file/out")]
        )
        assert done.exit_code == 1
        assert "Not a directory" in done.output

    def test_the_whole_study_of_a_small_site(self):
        small = _small()
        small = replace(
            small,
            site=replace(small.site, limiter_rate=40.0),
            cores=4,
            warm_up_seconds=1.0,
            window_seconds=6.0,
        )
        document = study(Study(small, RECORDED, (1,)))
        assert {"demand", "load", "saturation", "overload", "together", "limits"} <= set(document)
        assert json.loads(json.dumps(document))["saturation"][0]["client"] == "ours"

    def test_faults_are_parsed(self):
        assert parse_fault("pool-down:3@20+60.5") == Fault("pool-down", 20.0, 60.5, 3)
        assert set(PRESETS) == {"dr1", "crowd", "door-restart"}


class TestPredictions:
    """What `bench simulate --validate` predicts, where it can be said without measuring."""

    def test_mover_slots_over_the_time_of_a_mover(self):
        site = SiteSpec(doors=1, pools=1, movers=4, tls=False, limiter_rate=0.0, shares_processor=True)
        rate = validation.predict("get", {"get": 0.0}, clients=12, site=site, client_seconds=0.0, wait=0.1)
        assert rate == pytest.approx(40.0, rel=0.03)

    def test_the_limiter_of_a_client_and_of_a_door(self):
        site = SiteSpec(doors=1, pools=1, tls=False, shares_processor=True, late_seconds=0.06)
        door = {"options": 0.0001}
        for addresses, rate in ((1, 250.0), (8, 1000.0)):
            found = validation.predict(
                "options", door, clients=16, addresses=addresses, site=site, client_seconds=0.0001
            )
            assert found == pytest.approx(rate, rel=0.02)

    def test_a_prediction_that_is_off_is_seen(self):
        near = validation.Point("a", "a", 110.0, 100.0, "", "1/s")
        far = replace(near, predicted=121.0)
        assert near.agrees
        assert not far.agrees
        assert "too far" in validation.table([far])

    def test_a_request_of_a_client_of_sockets(self):
        pattern = Pattern("bare", "", False, (), 0.0, validation._bare)
        assert pattern.requests(Operation("list")) == (Ask("door", "list", "PROPFIND"),)
