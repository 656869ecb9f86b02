"""The benchmark of matrix products says why it cannot measure."""

from __future__ import annotations

import gpu_gemm
import pytest


@pytest.mark.parametrize(
    ("index", "reason"), [(0, "CLBlast is not installed"), (99, "there is no OpenCL device 99")]
)
def test_what_is_missing_is_said(monkeypatch, index, reason):
    pytest.importorskip("pyopencl", reason="PyOpenCL is not installed")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    assert reason in gpu_gemm.result(index, 0.1, None)["skipped"]
