"""`srkit doctor`: each thing that can be wrong, told apart from what is well, and what it says to do."""

import os
from types import SimpleNamespace

import pytest
from tiny import options, write_options

from srkit.tools import doctor
from srkit.tools.__main__ import main
from srkit.tools.doctor import Finding, of_disk, of_opencv, of_python, of_shared_memory, of_torch, of_torchvision
from srkit.tools.measuring import Speed

CV2 = SimpleNamespace(imdecode=len, __version__="5.0.0")


def fake_torch(version="2.15.0+cu132", build="13.2", visible=False):
    cuda = SimpleNamespace(is_available=lambda: visible, device_count=lambda: 0)
    return SimpleNamespace(
        __version__=version, version=SimpleNamespace(cuda=build), cuda=cuda, get_num_threads=lambda: 2
    )


def levels(findings):
    return [finding.level for finding in findings]


def test_both_builds_of_opencv_are_wrong_and_the_remedy_removes_both():
    installed = {"opencv-python": "5.0.0.93", "opencv-python-headless": "5.0.0.93"}
    (finding,) = of_opencv(installed, lambda _: CV2)
    assert finding.level == "wrong"
    assert finding.remedy == (
        "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python-headless"
    )


def test_one_build_of_opencv_is_well():
    assert levels(of_opencv({"opencv-python-headless": "5.0.0.93"}, lambda _: CV2)) == ["ok"]


def test_a_cv2_folder_that_lost_its_code_is_wrong():
    torso = SimpleNamespace(__version__="5.0.0")
    assert levels(of_opencv({"opencv-python-headless": "5"}, lambda _: torso)) == ["wrong"]


def test_a_cv2_that_needs_a_missing_library_is_wrong_and_says_which():
    (finding,) = of_opencv({"opencv-python": "5"}, lambda _: "ImportError: libGL.so.1: cannot open shared object file")
    assert finding.level == "wrong"
    assert "libGL.so.1" in finding.text
    assert "opencv-python-headless" in finding.remedy


@pytest.mark.parametrize(
    ("torch", "wish", "level"),
    [
        ("2.15.0+cu132", "torch>=2.14", "ok"),
        ("2.13.0+cpu", "torch>=2.14", "wrong"),
        ("2.13.0", "torch==2.13.0", "ok"),
        ("2.12.1", "torch==2.13.0", "wrong"),
        ("2.15.0", "torchcodec==0.1", "ok"),  # another package
    ],
)
def test_torchvision_must_be_the_one_of_this_torch(torch, wish, level):
    installed = {"torch": torch, "torchvision": "0.29.2"}
    found = of_torchvision(installed, lambda _: SimpleNamespace(), lambda _: ["numpy", wish])
    assert levels(found) == [level]


def test_a_torchvision_that_cannot_be_imported_is_wrong():
    text = "RuntimeError: operator torchvision::nms does not exist"
    (finding,) = of_torchvision({"torch": "2.15.0", "torchvision": "0.29.2"}, lambda _: text, lambda _: None)
    assert finding.level == "wrong"
    assert "torchvision::nms" in finding.text


def test_torchvision_is_not_needed_for_everything():
    assert levels(of_torchvision({"torch": "2.15.0"}, lambda _: "never", lambda _: None)) == ["note"]


def test_an_old_torch_is_wrong():
    (finding,) = of_torch({"torch": "2.9.1"}, lambda _: fake_torch("2.9.1", None))
    assert finding.level == "wrong"


def test_a_torch_of_two_digits_is_newer_than_one_of_one_digit():
    assert levels(of_torch({"torch": "2.10.0"}, lambda _: fake_torch("2.10.0", None))) == ["ok"]


def test_no_gpu_is_a_note_on_a_machine_without_driver(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(doctor, "_DRIVER", tmp_path / "none")
    assert levels(of_torch({"torch": "2.15.0"}, lambda _: fake_torch())) == ["ok", "note"]


def test_no_gpu_is_wrong_where_a_driver_is(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(doctor, "_DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text("NVRM version: 550\n")
    assert levels(of_torch({"torch": "2.15.0"}, lambda _: fake_torch())) == ["ok", "wrong"]


def test_a_gpu_hidden_by_the_environment_is_wrong_and_the_variable_is_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding = of_torch({"torch": "2.15.0"}, lambda _: fake_torch())[-1]
    assert finding.level == "wrong"
    assert "CUDA_VISIBLE_DEVICES" in finding.remedy


def test_a_build_for_the_cpu_misses_no_gpu():
    assert levels(of_torch({"torch": "2.15.0"}, lambda _: fake_torch("2.15.0+cpu", None))) == ["ok"]


def test_python_before_3_11_is_wrong():
    assert of_python((3, 10, 4)).level == "wrong"
    assert of_python((3, 11, 0)).level == "ok"


@pytest.mark.parametrize(("size", "level"), [(64 << 20, "wrong"), (2 << 30, "ok")])
def test_the_64_megabytes_of_a_container_are_too_little_shared_memory(monkeypatch, tmp_path, size, level):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(total=size))
    assert of_shared_memory(tmp_path).level == level


@pytest.mark.parametrize(("free", "level"), [(1e8, "wrong"), (1e11, "ok")])
def test_a_full_disk_is_wrong_also_where_the_folder_will_only_be_made(monkeypatch, tmp_path, free, level):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert of_disk("experiments", tmp_path / "not/there/yet").level == level


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_wrong(tmp_path):
    tmp_path.chmod(0o555)
    assert of_disk("experiments", tmp_path / "e").level == "wrong"


def test_a_finding_shows_what_to_do_below_what_is_wrong():
    assert str(Finding("wrong", "a", "b")) == "wrong a\n      -> b"


def test_the_command_ends_with_9_when_something_is_wrong_and_with_0_else(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "of_python", lambda _: Finding("ok", "Python"))
    for name in ("of_torch", "of_torchvision", "of_opencv", "of_optional"):
        monkeypatch.setattr(doctor, name, lambda *_: [])
    monkeypatch.setattr(doctor, "of_shared_memory", lambda _: Finding("ok", "room"))
    monkeypatch.setattr(doctor, "of_disk", lambda *_: Finding("ok", "disk"))
    assert main(["doctor"]) == 0
    assert "nothing wrong was found" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "of_disk", lambda *_: Finding("wrong", "disk", "make room"))
    assert main(["doctor"]) == 9
    assert "2 things wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("loader_s", "step_s", "both_s", "words"),
    [
        (0.3, 0.1, 0.3, "loading is the bottleneck: it takes 3.0 times"),
        (
            0.05,
            0.1,
            0.15,
            "computing is the bottleneck, but an iteration is 50% longer than it need be; loading waits its turn",
        ),
        (0.01, 0.1, 0.101, "loading keeps up"),
    ],
)
def test_the_slower_half_is_named(loader_s, step_s, both_s, words):
    assert words in Speed(loader_s, step_s, both_s).verdict(workers=0)


def test_doctor_measures_a_training_and_leaves_nothing_behind(tiny, capsys):
    path = write_options(tiny, options(tiny))
    main(["doctor", "-opt", str(path), "--seconds", "0.1"])
    out = capsys.readouterr().out
    assert "loader alone" in out
    assert "bottleneck" in out
    assert not (tiny / "experiments").exists()
