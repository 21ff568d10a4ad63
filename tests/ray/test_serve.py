"""Replicas behind Ray Serve: one on each node, and a run's events from the replica that has it."""

import socket
from contextlib import contextmanager

import pytest

from tests.server.live import Live, until

pytestmark = pytest.mark.slow  # Ray Serve alone takes four seconds to import
QUESTIONS = [f"What is {n} + 415 - 86?" for n in range(12)]


def asked(question, **more):
    return {"messages": [{"role": "user", "content": question}], "temperature": 0} | more


@contextmanager
def served(address, **arguments):
    """The application on a cluster, at a free port of each node."""
    import ray
    from ray import serve

    from sparing.ray.serve import app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(address, log_to_driver=False, logging_level="CRITICAL")
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        serve.run(app({"model": "pocket", **arguments}), name="tested")
        yield Live(None, port, arguments.get("api_key"))
    finally:
        serve.shutdown()
        ray.shutdown()


def replica(run):
    return run.split("-")[1]


def test_a_runs_events_are_found_at_its_replica_until_its_node_is_lost(cluster):
    with served(cluster.address, min_replicas="2", keep_runs="16") as live:
        client = live.client()
        answers = [
            client.chat.completions.create(model="pocket", **asked(question))
            for question in QUESTIONS
        ]
        runs = {answer.id: answer for answer in answers}
        assert len({replica(run) for run in runs}) == 2
        for run, answer in runs.items():
            state = live.ask("GET", f"/v1/runs/{run}").json
            assert state["id"] == run
            assert state["choices"][0]["stats"]["new_tokens"] == answer.usage.completion_tokens
            events = live.ask("GET", f"/v1/runs/{run}/events").body
            assert events.count(b"event: token") == answer.usage.completion_tokens
        never = live.ask("GET", "/v1/runs/chatcmpl-zzzzzzzz-0123")
        assert (never.status, never.json["error"]["code"]) == (404, "run_not_found")

        there = lost_replicas(runs, live, cluster)
        for run in runs:
            status = live.ask("GET", f"/v1/runs/{run}").status
            assert status == (404 if replica(run) in there else 200)
        again = client.chat.completions.create(model="pocket", **asked(QUESTIONS[0]))
        assert again.choices[0].message == answers[0].choices[0].message


def lost_replicas(runs, live, cluster):
    """Kill the second node; gives the replicas that were on it."""
    cluster.kill()
    missing = lambda: {  # noqa: E731
        replica(run) for run in runs if live.ask("GET", f"/v1/runs/{run}").status == 404
    }
    until(missing)
    found = missing()
    assert len(found) == 1
    return found


def test_streams_and_who_leaves_is_not_answered(cluster):
    with served(cluster.address, api_key="secret") as live:
        client = live.client()
        parts = list(
            client.chat.completions.create(model="pocket", stream=True, **asked(QUESTIONS[0]))
        )
        said = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        whole = client.chat.completions.create(model="pocket", **asked(QUESTIONS[0]))
        assert said == whole.choices[0].message.content
        long = {"ignore_eos": True, "max_tokens": 3500}
        stream = client.chat.completions.create(
            model="pocket", stream=True, extra_body=long, **asked(QUESTIONS[1])
        )
        first = next(stream)
        stream.close()
        run, key = f"/v1/runs/{first.id}", {"authorization": "Bearer secret"}
        until(lambda: live.ask("GET", run, **key).json["status"] == "ended")
        [choice] = live.ask("GET", run, **key).json["choices"]
        assert choice["finish_reason"] == "interrupted"
        assert live.ask("GET", run).status == 401


def test_arguments_are_those_of_sparing_serve():
    from ray.serve._private.build_app import build_app

    from sparing.ray.serve import app

    application = app(
        {"model": "pocket", "threads": 2, "budget": 512, "rows": "8", "no_think": True,
         "trees": "false", "cors_origin": ["https://a.example", "https://b.example"],
         "min_replicas": "1", "max_replicas": "4", "ongoing_requests": 16}
    )  # fmt: skip
    built = build_app(application, name="tested").deployments[0]
    loading, serving, defaults = built.init_args
    assert (loading.threads, built.ray_actor_options["num_cpus"]) == (2, 2)
    assert (serving.rows, len(serving.cors_origins)) == (8, 2)
    assert (defaults.memory.budget, defaults.no_think) == (512, True)
    scaling = built._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 4)
    assert scaling.target_ongoing_requests == 16


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "pocket", "buget": 9}, "--buget"),
        ({"model": "pokcet"}, "did you mean pocket"),
        ({"rows": 0}, "--rows"),
        ({"min_replicas": 3, "max_replicas": 2}, "--max-replicas must be at least"),
        ({"latent": "learned"}, "latent"),
    ],
)
def test_what_cannot_work_is_refused_before_a_replica_starts(given, said):
    from sparing.errors import SparingError
    from sparing.ray.serve import app

    with pytest.raises(SparingError, match=said):
        app(given)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/runs/chatcmpl-a4i6aauj-13ccf3e7", "a4i6aauj"),
        ("/models/pocket/runs/cmpl-a4i6aauj-13ccf3e7/events", "a4i6aauj"),
        ("/v1/runs/chatcmpl-13ccf3e7", None),
        ("/v1/chat/completions", None),
    ],
)
def test_the_replica_of_a_path(path, found):
    from sparing.ray.router import replica_of

    assert replica_of(path) == found
