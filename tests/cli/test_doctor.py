"""cocoop doctor: what is well, what is not, and what to do."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cocoop_tutorial.cli import doctor
from cocoop_tutorial.cli.doctor import FAIL, OK, WARN, Finding
from cocoop_tutorial.cli.main import app


def test_this_machine_has_what_these_tests_need() -> None:
    assert doctor.check_python().status == OK
    assert doctor.check_packages().status == OK
    assert doctor.check_device().status in (OK, WARN)
    assert "GB free" in doctor.check_memory().found
    assert doctor.check_disk().found


def test_old_python() -> None:
    finding = doctor.check_python((3, 9, 1))
    assert finding.status == FAIL and finding.found == "3.9.1" and "3.11" in finding.todo


def test_missing_and_old_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "wish_list-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: wish-list\nVersion: 1.0\n"
        "Requires-Dist: torch>=99\nRequires-Dist: no-such-package\n"
        "Requires-Dist: also-not-there; extra == 'test'\nRequires-Dist: numpy>=1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    finding = doctor.check_packages("wish-list")
    assert finding.status == FAIL
    assert "torch" in finding.found and ">=99" in finding.found
    assert "no-such-package is missing" in finding.found
    assert "numpy" not in finding.found and "also-not-there" not in finding.found
    assert finding.todo == 'pip install --upgrade "torch>=99" "no-such-package"'


def test_too_little_memory_and_disk(tmp_path: Path) -> None:
    assert doctor.check_memory(need_gb=1e6).status == FAIL
    finding = doctor.check_disk(need_gb=1e6, folder=tmp_path / "not" / "yet")
    assert finding.status == FAIL and "COCOOP_CACHE" in finding.todo
    assert doctor.check_disk(need_gb=0, folder=tmp_path).status == OK


def test_embedded_data_that_was_never_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOOP_CACHE", str(tmp_path))
    finding = doctor.check_embedded()
    assert finding.status == FAIL and finding.found.startswith("0 of ")
    assert finding.todo == "cocoop data build"


def test_the_papers_data_are_listed_and_never_needed(tmp_path: Path) -> None:
    assert doctor.check_paper(tmp_path).status == OK
    (tmp_path / "caltech-101").mkdir()
    assert "1 of 15" in doctor.check_paper(tmp_path).found
    assert "caltech101" in doctor.check_paper(tmp_path).found


def test_weights(model_dir: Path, tmp_path: Path) -> None:
    assert "32 pixels" in doctor.check_weights(f"local-dir:{model_dir}").found
    finding = doctor.check_weights(f"local-dir:{tmp_path}")
    assert finding.status == FAIL and "cocoop_tutorial.pretraining.run" in finding.todo


def test_a_check_that_crashes_becomes_a_finding() -> None:
    def crash() -> Finding:
        raise ImportError("libcuda is not there\nand more")

    finding = doctor._guarded("device", crash)
    assert (finding.status, finding.found) == (FAIL, "libcuda is not there")


def test_report_shows_what_to_do() -> None:
    text = doctor.report(
        [Finding("python", OK, "3.11"), Finding("disk", FAIL, "0 GB", "Free 1 GB")]
    )
    assert "OK" in text and "-> Free 1 GB" in text and "1 to fix" in text
    assert "Everything is ready" in doctor.report([Finding("python", OK, "3.11")])


def test_exit_status_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOOP_CACHE", str(tmp_path))  # so that one check fails for sure
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 1
    findings = {f["topic"]: f for f in json.loads(result.stdout)}
    assert findings["embedded data"]["status"] == FAIL
    assert findings["python"]["status"] == OK
    plain = CliRunner().invoke(app, ["doctor"])
    assert plain.exit_code == 1 and "-> cocoop data build" in plain.stdout
