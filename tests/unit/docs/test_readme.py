"""What README.md has its reader write is taken as it stands."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import yaml
from multipick_epp.config import Config
from multipick_epp.engines.event_sources import EventSource, parse
from multipick_operator.api.pool import decode

README = (Path(__file__).parents[3] / "README.md").read_text()


def test_the_pickers_file_is_one() -> None:
    shown = re.findall(r"^# epp\.yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert [len(msgspec.convert(yaml.safe_load(each), Config).endpoints) for each in shown] == [2]


def test_envoys_bootstrap_names_the_files_endpoints_and_the_pickers_port() -> None:
    shown = re.findall(r"^python -c ('[^']*') > envoy\.json$", README, re.MULTILINE)
    assert len(shown) == 1
    code = shlex.split(shown[0])
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", *code], capture_output=True, check=True, env=os.environ | paths)
    resources = json.dumps(json.loads(told.stdout)["static_resources"])
    assert all(each in resources for each in ("10.0.0.11", "10.0.0.12", "9002", "8080"))


def test_the_pool_is_one() -> None:
    shown = re.findall(r"^kubectl apply -f - <<EOF\n(.*?)^EOF", README, re.MULTILINE | re.DOTALL)
    assert len(shown) == 1
    assert decode(yaml.safe_load(shown[0])["spec"]).replicas == 2


def test_the_options_of_the_engines_events_are_those_that_a_picker_reads() -> None:
    shown = re.findall(r"--kv-events-config \\\n +'(.*)'", README)
    assert len(shown) == 1
    told = parse(b'{"0": %s}' % shown[0].encode())
    assert told == {0: EventSource(endpoint="tcp://*:5557", replay_endpoint="tcp://*:5558")}
