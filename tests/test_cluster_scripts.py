"""Files that bring up a cluster: they agree with each other, with the pins, and with Ray."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "scripts" / "cluster"
SCRIPTS = sorted((ROOT / "scripts").rglob("*.sh"))
KUBERAY = {"kuberay.yaml": "RayCluster", "kuberay-job.yaml": "RayJob"}
PINS = (ROOT / "constraints.txt").read_text("utf-8")
(RAY,) = re.findall(r"^ray==(.*)$", PINS, re.M)
(PYTHON,) = re.findall(r"on Python (3\.\d+)", PINS)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
BASE = f"rayproject/ray:{RAY}-py{PYTHON.replace('.', '')}"
IMAGE = f"archbench:{VERSION}"
HERE, THERE = "192.0.2.1", "192.0.2.2"


# --- what the files hold ----------------------------------------------------------------


def document(name: str, folder: Path = CLUSTER) -> Any:
    """A YAML file of one document."""
    return yaml.safe_load((folder / name).read_text("utf-8"))


def ray_cluster(name: str, folder: Path = CLUSTER) -> Any:
    """The specification of the RayCluster in a file of KubeRay."""
    spec = document(name, folder)["spec"]
    return spec["rayClusterSpec"] if KUBERAY[name] == "RayJob" else spec


def pods(name: str, folder: Path = CLUSTER) -> list[Any]:
    """Templates of the head and of each group of workers."""
    spec = ray_cluster(name, folder)
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


def dockerfile(folder: Path = CLUSTER) -> list[list[str]]:
    """The words of each instruction."""
    text = (folder / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line[:1].isalpha()]


def files_of_start() -> set[str]:
    """What start.sh brings to a host."""
    (listed,) = re.findall(r"^files=\((.*)\)$", (CLUSTER / "start.sh").read_text("utf-8"), re.M)
    return set(listed.split())


def ray_settings() -> dict[str, str]:
    """What _ray.sh sets, as a shell sees it."""
    said = subprocess.run(
        ["env", "-i", "bash", "-c", f"source {CLUSTER}/_ray.sh && env"],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    pairs = (line.partition("=") for line in said.stdout.splitlines())
    return {name: value for name, _, value in pairs if name.startswith("RAY_")}


# --- versions ---------------------------------------------------------------------------


def differing_versions(folder: Path) -> list[str]:
    """Every version that the files of a folder name, where it is not the pinned one."""
    named = [("Dockerfile", dockerfile(folder)[0][1], BASE)]
    for name in KUBERAY:
        named.append((name, ray_cluster(name, folder)["rayVersion"], RAY))
        for pod in pods(name, folder):
            named += [(name, container["image"], IMAGE) for container in pod["spec"]["containers"]]
    for path in sorted(folder.iterdir()):
        text = path.read_text("utf-8")
        found = re.findall(r"\b[Pp]ython ?(3\.\d+)", text)
        named += [(path.name, version, PYTHON) for version in found]
        named += [(path.name, tag, IMAGE) for tag in re.findall(r"\barchbench:\d[\w.]*", text)]
    assert {name for name, found, _ in named if found == PYTHON} >= {
        "README.md",
        "_host.sh",
        "ray-up.yaml",
        "start.sh",
    }
    return [f"{name}: {found}, not {wanted}" for name, found, wanted in named if found != wanted]


def test_versions_are_the_pinned_ones() -> None:
    assert differing_versions(CLUSTER) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("Dockerfile", BASE, BASE + "1"),
        ("Dockerfile", IMAGE, "archbench:0.0.1"),
        ("README.md", IMAGE, "archbench:0.0.1"),
        ("README.md", f"Python {PYTHON}", "Python 3.9"),
        ("_host.sh", f":-python{PYTHON}}}", ":-python3.9}"),
        ("ray-up.yaml", f"python{PYTHON}", "python3.9"),
        ("kuberay.yaml", f"rayVersion: {RAY}", "rayVersion: 2.0.0"),
        ("kuberay-job.yaml", f"image: {IMAGE}", "image: archbench:latest"),
    ],
)
def test_another_version_is_found(tmp_path: Path, name: str, old: str, new: str) -> None:
    folder = shutil.copytree(CLUSTER, tmp_path / "cluster")
    text = (folder / name).read_text("utf-8")
    assert old in text
    # A comment with the right version hides no wrong one.
    (folder / name).write_text(text.replace(old, new, 1) + f"# {old}\n", "utf-8")
    assert differing_versions(folder) != []


def test_all_ways_bring_the_same_files() -> None:
    mounts = document("ray-up.yaml")["file_mounts"]
    token = "~/.ray/auth_token"
    assert mounts.pop(token) == token
    wanted = files_of_start()
    assert mounts == {f"~/.archbench/checkout/{name}": name for name in wanted}
    copied = [words[1:] for words in dockerfile() if words[0] == "COPY"]
    assert {word for words in copied for word in words[1:-1]} == wanted
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == wanted
    assert all((ROOT / name).exists() for name in wanted)


# --- Ray's launcher ---------------------------------------------------------------------


def test_ray_accepts_the_file_of_its_launcher() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(document("ray-up.yaml"))
    validate_config(config)
    (workers,) = config["available_node_types"].values()
    assert workers["min_workers"] == len(config["provider"]["worker_ips"]) > 0
    with pytest.raises(Exception, match="setup_command"):
        validate_config(prepare_config(document("ray-up.yaml") | {"setup_command": []}))


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_the_launcher_starts_ray_with_the_shared_settings(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "home"
    (home / ".archbench").mkdir(parents=True)
    (home / ".archbench" / "checkout").symlink_to(ROOT)
    fake = tmp_path / "ray"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nenv\n')
    fake.chmod(0o755)
    stop, start = document("ray-up.yaml")[f"{kind}_start_ray_commands"]
    assert stop == "ray stop"
    done = subprocess.run(
        ["bash", "-euc", start],
        env={
            "HOME": str(home),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "RAY_HEAD_IP": HERE,
            "SSH_CONNECTION": f"192.0.2.9 40000 {THERE} 22",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    said = done.stdout.splitlines()
    assert said[0] == "start"
    assert {f"--node-ip-address={THERE}", "--disable-usage-stats"} <= set(said)
    assert ("--head" if kind == "head" else f"--address={HERE}:6379") in said
    assert {f"{name}={value}" for name, value in ray_settings().items()} <= set(said)


# --- Kubernetes -------------------------------------------------------------------------


def test_the_image_has_the_shared_settings_and_the_pins() -> None:
    by_name: dict[str, list[list[str]]] = {}
    for name, *words in dockerfile():
        by_name.setdefault(name, []).append(words)
    settings = ray_settings()
    assert settings["RAY_AUTH_MODE"] == "token"
    (environment,) = by_name["ENV"]
    assert sorted(environment) == sorted(f"{name}={value}" for name, value in settings.items())
    (installation,) = by_name["RUN"]
    assert installation[:2] == ["pip", "install"]
    assert installation[installation.index("--constraint") + 1] == "constraints.txt"
    assert {".", "ray[default]"} <= set(installation)
    assert by_name["WORKDIR"] == [["/opt/archbench"]]


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_are_alone_on_their_machines(name: str) -> None:
    file, spec = document(name), ray_cluster(name)
    assert (file["apiVersion"], file["kind"]) == ("ray.io/v1", KUBERAY[name])
    assert spec["authOptions"] == {"mode": "token"}
    for pod in pods(name):
        rules = pod["spec"]["affinity"]["podAntiAffinity"]
        (rule,) = rules["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rule["topologyKey"] == "kubernetes.io/hostname"
        assert rule["labelSelector"]["matchLabels"] == pod["metadata"]["labels"] != {}
        (container,) = pod["spec"]["containers"]
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert set(resources["limits"]) == {"cpu", "memory"}
        assert resources["limits"]["cpu"].isdigit()
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]


def test_both_files_of_kuberay_have_the_same_cluster() -> None:
    assert ray_cluster("kuberay.yaml") == ray_cluster("kuberay-job.yaml")


def test_results_outlive_the_cluster() -> None:
    claim = document("kuberay-results.yaml")
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    head, *_ = pods("kuberay-job.yaml")
    (mount,) = [m for m in head["spec"]["containers"][0]["volumeMounts"] if m["name"] == "results"]
    (volume,) = [v for v in head["spec"]["volumes"] if v["name"] == "results"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    words = shlex.split(document("kuberay-job.yaml")["spec"]["entrypoint"])
    assert words[:2] == ["archbench", "run"]
    assert words[words.index("--results") + 1] == mount["mountPath"]
    assert (ROOT / Path(words[2]).relative_to("/opt/archbench")).is_file()


# --- scripts ----------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    commands = [["bash", "-n", str(script)]]
    if shutil.which("shellcheck"):
        commands.append(["shellcheck", "-x", "--source-path=SCRIPTDIR", str(script)])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_whatever_starts_ray_has_the_shared_settings() -> None:
    texts = {path.name: path.read_text("utf-8") for path in SCRIPTS}
    starting = {
        name for name, text in texts.items() if re.search(r"^[^#]*\bray start\b", text, re.M)
    }
    assert starting == {"_host.sh", "namespaces.sh"}
    assert {name for name in starting if "/_ray.sh" not in texts[name]} == set()


def start(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """start.sh where one host answers to ssh and the other does not; asked.txt has what was run."""
    ssh = folder / "ssh"
    ssh.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >>{folder}/asked.txt\n'
        f'case "$1" in *{THERE}) echo "no route to it" >&2; exit 255 ;; esac\n'
        "cat >/dev/null\n"
    )
    ssh.chmod(0o755)
    token = folder / "secret" / "token"
    changes = {"ARCHBENCH_SSH": str(ssh), "RAY_AUTH_TOKEN_PATH": str(token), "HOME": str(folder)}
    return subprocess.run(
        [str(CLUSTER / "start.sh"), *words],
        env=os.environ | changes,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "start.sh up HEAD"),
        (["restart", HERE], "start.sh up HEAD"),
        (["up"], "no host is named"),
        (["down"], "no host is named"),
        (["up", "head.example"], "'head.example' is not [user@]IPv4-address"),
        (["up", f"-oProxyCommand=x@{HERE}"], "is not [user@]IPv4-address"),
        (["up", HERE, f"alice@{HERE}"], "a host is named twice"),
    ],
)
def test_wrong_use_is_told(tmp_path: Path, words: list[str], why: str) -> None:
    done = start(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert not (tmp_path / "asked.txt").exists()


@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_host_that_cannot_be_reached_is_named(tmp_path: Path, command: str) -> None:
    done = start(tmp_path, command, HERE, f"alice@{THERE}")
    assert done.returncode == 3
    assert f"error: alice@{THERE}: " in done.stderr
    assert "| no route to it" in done.stderr
    assert HERE not in done.stderr


def test_the_token_is_for_its_owner_alone_and_on_no_command_line(tmp_path: Path) -> None:
    done = start(tmp_path, "up", HERE)
    assert done.returncode == 0, done.stderr
    assert f"archbench doctor --address {HERE}:6379" in done.stdout
    token = tmp_path / "secret" / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    secret = token.read_text().strip()
    assert len(secret) >= 32
    assert secret not in (tmp_path / "asked.txt").read_text()
    assert secret not in done.stdout + done.stderr
    assert start(tmp_path, "up", HERE).returncode == 0
    assert token.read_text().strip() == secret
