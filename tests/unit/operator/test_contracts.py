"""What the operator writes is what the other programs read: their own parsers say so."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis.strategies import characters, from_regex
from multipick_epp import config
from multipick_epp.admin.status import EndpointCounts, PickerStatus
from multipick_epp.checks.mismatch import Kind, Mismatch
from multipick_epp.decision.hotspots import HotPrefix
from multipick_epp.extproc.http2.protocol import Refusal
from multipick_epp.policy import registry
from multipick_epp.state.redis.address import parse_url
from multipick_epp.types import Endpoint, Mode, ReplicaId
from multipick_operator import weights
from multipick_operator.api.pool import Pool, pool_of
from multipick_operator.api.rules import POLICIES, WITH_PARAMETER
from multipick_operator.api.texts import STORE_URL
from multipick_operator.children.commands import command
from multipick_operator.children.configuration import configuration
from multipick_operator.children.context import Context
from multipick_operator.children.picker import pickers
from multipick_operator.children.store_user import COMMANDS, user_url
from multipick_operator.references import references
from multipick_operator.status.fetching import progress
from multipick_operator.status.pickers import PickerReport, engines_match, gateways_match, index_ready, read
from multipick_operator.store_client import client_of
from multipick_sim.cli import _parser

MakePool = Callable[..., Pool]
ASCII = characters(min_codepoint=32, max_codepoint=126)


def test_the_picker_reads_its_configuration(make_pool: MakePool, context: Context, tmp_path: Path) -> None:
    pool = make_pool(model={"uri": "hf://org/m", "aliases": ["b"]}, engine={"blockSize": 32})
    file = tmp_path / "epp.yaml"
    file.write_text(yaml.safe_dump(configuration(pool, context)))
    loaded = config.load(file)
    assert loaded.pool.models == ("p", "b")
    assert loaded.pool.block_size == 32
    assert (loaded.events.port, loaded.events.replay_port) == (5557, 5657)
    assert loaded.listen.ext_proc == 9002
    assert loaded.kubernetes is not None
    assert loaded.kubernetes.namespace == "ml"


def test_the_picker_reads_what_the_pool_says_of_it(make_pool: MakePool, context: Context, tmp_path: Path) -> None:
    def loaded(**spec: Any) -> config.Config:
        file = tmp_path / "epp.yaml"
        file.write_text(yaml.safe_dump(configuration(make_pool(**spec), context)))
        return config.load(file)

    assert loaded().limits == msgspec.structs.replace(config.Limits(), drain_s=30.0)
    assert (loaded().hotspot_guard, loaded().shadow, loaded().events.media) == (True, (), {})
    picker = {"hotspotGuard": False, "shadow": ["vllm-v1"], "maxBodyBytes": 1 << 20, "maxReadBytes": 1 << 16}
    told: dict[str, Any] = {"routing": {"picker": picker}}
    found = loaded(**told, engine={"kvEvents": {"media": {"CPU": 50, "STORAGE": 0}}})
    assert (found.hotspot_guard, found.shadow) == (False, ("vllm-v1",))
    assert found.events.media == {"CPU": 0.5, "STORAGE": 0.0}
    assert (found.limits.max_body_bytes, found.limits.max_read_bytes) == (1 << 20, 1 << 16)
    argument = ["--kv-transfer-config={}"]
    by_template = {"spec": {"containers": [{"name": "engine", "args": argument}]}}
    for connected in (loaded(**told, engine={"args": argument}), loaded(**told, podTemplate=by_template)):
        assert connected.limits.max_body_bytes == connected.limits.max_read_bytes == 1 << 16


def test_workers_are_told_and_each_has_its_resources(make_pool: MakePool, context: Context, tmp_path: Path) -> None:
    def loaded(pool: Pool) -> config.Config:
        file = tmp_path / "epp.yaml"
        file.write_text(yaml.safe_dump(configuration(pool, stored)))
        return config.load(file)

    stored = replace(context, defaults=replace(context.defaults, state_url="redis://s:6379"))
    one, three = make_pool(), make_pool(routing={"picker": {"workers": 3}})
    assert (loaded(one).workers, loaded(three).workers) == (1, 3)
    assert "workers" not in configuration(one, stored), "pickers of older releases read it, too"
    found = []
    for pool in (one, three):
        [deployment] = [each for each in pickers(pool, stored) if each["kind"] == "Deployment"]
        found.append(deployment["spec"]["template"]["spec"]["containers"][0]["resources"])
    assert found == [
        {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        {"requests": {"cpu": "1500m", "memory": "1536Mi"}, "limits": {"memory": "6Gi"}},
    ]


def test_own_traffic_is_captured_under_the_pools_own_secret_on_a_volume_that_holds_it(
    make_pool: MakePool, context: Context, tmp_path: Path
) -> None:
    stored = replace(context, defaults=replace(context.defaults, state_url="redis://s:6379", state_password="p"))
    file = tmp_path / "epp.yaml"
    for more, volume in (
        ({}, {"emptyDir": {"sizeLimit": "264Mi"}}),
        ({"claimName": "kept"}, {"persistentVolumeClaim": {"claimName": "kept"}}),
    ):
        pool = make_pool(routing={"picker": {"capture": {"files": 3, **more}}})
        file.write_text(yaml.safe_dump(configuration(pool, stored)))
        loaded = config.load(file)
        assert loaded.capture == config.Capture("/var/lib/multipick/capture", files=3)
        assert loaded.pool.secret_env is not None
        [deployment] = [one for one in pickers(pool, stored) if one["kind"] == "Deployment"]
        spec = deployment["spec"]["template"]["spec"]
        assert {"name": "capture", **volume} in spec["volumes"]
        assert {"name": "capture", "mountPath": loaded.capture.path} in spec["containers"][0]["volumeMounts"]
        claims = [one.ref.name for one in references(pool) if one.ref.kind == "PersistentVolumeClaim"]
        assert claims == (["kept"] if more else [])


def test_the_operator_reads_how_far_an_init_step_is(tmp_path: Path) -> None:
    step = weights.Progress(tmp_path)
    assert progress(step.told()) == "asks what there is"
    step.state = "waiting"
    assert progress(step.told()) == "waits for another pod that fetches"
    step.state, step.total = "fetching", 2_000_000_000
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", 500_000_000)
    assert progress(step.told()) == "0.5 of 2.0 GB (25%)"
    endless = b'{"state": "fetching", "total": 1, "done": ' + b"9" * 400 + b"}"
    for odd in (b"", b"[]", b'{"state": "fetching", "total": -1}', b'{"state": 1}', b"[" * 100_000, endless):
        assert progress(odd) in ("", "asks what there is")


def test_a_pools_user_of_the_store_may_do_what_pickers_do() -> None:
    page = (Path(__file__).parents[3] / "docs/state.md").read_text()
    rules = page.split("ACL SETUSER picker ")[1].split("```")[0].split()
    assert set(COMMANDS) == {rule for rule in rules if rule.startswith("+")}


def test_every_policy_of_the_picker_may_be_asked_for() -> None:
    assert set(POLICIES) == set(registry.BUILT_IN)
    assert set(WITH_PARAMETER) == set(registry.WITH_PARAMETER)


def test_the_simulated_pod_understands_its_command_line(make_pool: MakePool) -> None:
    pool = make_pool(
        model={"uri": "/simulated", "aliases": ["b"]},
        engine={"type": "Simulated", "blockSize": 32, "args": ["--speed", "2"]},
        parallelism={"data": 2},
        lora={"adapters": [{"name": "a", "uri": "/a"}]},
        drain={"timeoutSeconds": 7},
    )
    read = _parser().parse_args(command(pool, rank=1, worker=False)[2:])
    assert read.served_model_name == ["p", "b"]
    assert read.lora == ["a"]
    assert (read.port, read.events_port, read.replay_port) == (8001, 5557, 5657)  # the engine adds its rank
    assert (read.data_parallel_rank, read.block_size, read.shutdown_timeout, read.speed) == (1, 32, 7.0, 2.0)


def status_of(
    *mismatches: Mismatch,
    state: str | None = None,
    hotspots: Sequence[HotPrefix] = (),
    refused: Mapping[str, str] | None = None,
) -> PickerReport | None:
    """A picker's own words, as the operator reads them."""
    endpoints = EndpointCounts(2, 1, {Mode.EXACT: 2})
    status = PickerStatus(
        ReplicaId("r"), state, None, "local", endpoints, mismatches, hotspots=hotspots, refused=refused or {}
    )
    return read(msgspec.json.encode(status))


def test_the_operator_reads_the_pickers_status() -> None:
    found = status_of(Mismatch(Kind.MODEL, Endpoint("10.0.0.1:8000"), "it serves x"), state="loads: away")
    assert found is not None
    assert (found.state, found.ingest) == ("loads: away", None)
    assert (found.endpoints.ready, found.endpoints.checked, found.endpoints.modes) == (2, 1, {"exact": 2})
    assert [(one.kind, one.endpoint, one.words) for one in found.mismatches] == [
        ("model", "10.0.0.1:8000", "it serves x")
    ]


def test_the_operator_reads_what_a_picker_says_of_hot_prefixes() -> None:
    hot = HotPrefix("0a41", 1024, 0.7143, [Endpoint("10.0.0.1:8000")])
    found = status_of(hotspots=[hot])
    assert found is not None
    assert [msgspec.structs.asdict(one) for one in found.hotspots] == [msgspec.structs.asdict(hot)]


def test_every_kind_of_mismatch_has_a_reason_of_its_own() -> None:
    reasons = set()
    for kind in Kind:
        found = status_of(Mismatch(kind, Endpoint("10.0.0.1:8000"), "w"))
        assert found is not None
        reasons |= {one.reason for one in (index_ready([found]), engines_match([found])) if one.status == "False"}
    assert reasons == {"ModelMismatch", "TokenizerMismatch", "BlockSizeMismatch", "PredictionDrift", "NoEvents"}


def test_the_operator_knows_the_pickers_words_for_gateways_of_another_protocol() -> None:
    cut = (Refusal.TLS_ON_PLAINTEXT, Refusal.PLAINTEXT_ON_TLS, Refusal.TLS_FAILED)
    for why in Refusal:
        found = status_of(refused={str(why): "10.0.0.9"})
        assert found is not None
        assert gateways_match([found]).status == ("False" if why in cut else "True")


@settings(max_examples=300, deadline=None)
@given(from_regex(STORE_URL, fullmatch=True, alphabet=ASCII))
def test_the_picker_reads_every_url_of_a_store_that_is_admitted(url: str) -> None:
    if "ca=" in url or "cert=" in url or "key=" in url or "[" in url:
        return  # files that aren't here, and addresses that look like IPv6's
    server = parse_url(url)
    assert server.hosts
    assert server.password is None


@settings(max_examples=300, deadline=None)
@given(url=from_regex(STORE_URL, fullmatch=True, alphabet=ASCII))
def test_the_operator_comes_to_the_store_that_pickers_come_to_and_gives_them_the_pools_user(url: str) -> None:
    if "ca=" in url or "cert=" in url or "key=" in url or "[" in url:
        return  # likewise
    server = parse_url(url)
    client, sentinels = client_of(url, "pw")
    ours = client.connection_pool.connection_kwargs
    hosts = [one.connection_pool.connection_kwargs for one in sentinels] or [ours]
    assert tuple((host["host"], host.get("port", 6379)) for host in hosts) == server.hosts
    assert (ours.get("username"), ours["password"], ours.get("db", 0)) == (server.username, "pw", server.database)
    assert getattr(client.connection_pool, "service_name", "") == server.service
    meta = {"namespace": "ml", "name": "p", "uid": "u", "generation": 1}
    pool = pool_of({"metadata": meta, "spec": {"model": {"uri": "/m"}}})
    assert parse_url(user_url(url, pool)) == replace(server, username="ml.p")


def test_the_operator_reads_the_files_of_a_stores_certificates() -> None:
    client, _ = client_of("rediss://admin@valkey:1/2?ca=/a%20b&cert=/c&key=/d", "pw")
    found = client.connection_pool.connection_kwargs
    assert [found[f"ssl_{name}"] for name in ("ca_certs", "certfile", "keyfile")] == ["/a b", "/c", "/d"]


def expanded(word: str) -> str:
    """What a kubelet makes of an argument (`third_party/forked/golang/expansion`), with `?` for a variable."""
    return re.sub(r"\$(\$|\([^)]*\))", lambda found: "$" if found[1] == "$" else "?", word)


@pytest.mark.parametrize("engine", ["VLLM", "SGLang", "Simulated"])
@pytest.mark.parametrize("name", ["m$(POD_IP)", "m$$(POD_IP)", "m$$$x$", "m$x"])
def test_an_engine_and_the_pickers_have_the_same_names_whatever_a_kubelet_expands(
    make_pool: MakePool, context: Context, engine: str, name: str
) -> None:
    more = {"aliases": [f"{name}-too"]} if engine != "SGLang" else {}
    pool = make_pool(
        model={"uri": "hf://org/m", "name": name, **more},
        engine={"type": engine, "kvEvents": {"topic": name}},
        lora={"adapters": [{"name": f"{name}-lora", "uri": "hf://org/lora"}]},
    )
    words = [expanded(word) for word in command(pool, 0, False)]
    assert set(configuration(pool, context)["pool"]["models"]) <= set(words)
    assert any(word.partition("=")[0] == f"{name}-lora" for word in words)
    topics = [json.loads(word)["topic"] for word in words if word.startswith("{")]
    assert topics == [name] or words[words.index("--event-topic") + 1] == name
