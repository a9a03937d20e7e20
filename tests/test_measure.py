"""Free memory: the machine's, or what the limits of control groups leave."""

from pathlib import Path

import psutil
import pytest

from cocoop_tutorial.measure import free_memory

MB = 1 << 20


def group(folder: Path, limit: str, used: int, cached: int, version: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else (
        "memory.limit_in_bytes", "memory.usage_in_bytes")  # fmt: skip
    prefix = "" if version == 2 else "total_"
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    stat = f"{prefix}active_file {cached // 2}\n{prefix}inactive_file {cached // 2}\n"
    (folder / "memory.stat").write_text(stat)


@pytest.mark.parametrize(
    ("line", "folder", "version"),
    [
        ("0::/", "", 2),  # in a container the own group is the root
        ("0::/slurm/job_1/step_0", "slurm/job_1", 2),  # the limit is that of the whole job
        ("4:memory:/docker/1f", "memory", 1),  # its name outside, where it cannot be seen
        ("4:memory:/batch", "memory/batch", 1),
    ],
)
def test_the_smaller_of_machine_and_limit(
    tmp_path: Path, line: str, folder: str, version: int
) -> None:
    own = tmp_path / "own"
    own.write_text(f"9:name=systemd:/\n{line}\n")
    group(tmp_path / "cgroup" / folder, str(50 * MB), 30 * MB, 10 * MB, version)
    assert free_memory(tmp_path / "cgroup", own) == 30 * MB, "cached files can be dropped"
    group(tmp_path / "cgroup" / folder, str(20 * MB), 30 * MB, 0, version)
    assert free_memory(tmp_path / "cgroup", own) == 0
    group(tmp_path / "cgroup" / folder, "max", 30 * MB, 0, version)
    most = psutil.virtual_memory().total
    assert MB < free_memory(tmp_path / "cgroup", own) < most


def test_without_control_groups(tmp_path: Path) -> None:
    assert 0 < free_memory(tmp_path, tmp_path / "none") < psutil.virtual_memory().total
    assert 0 < free_memory() < psutil.virtual_memory().total
