"""Test that a process gives freed memory back."""

import subprocess
import sys

import pytest

_COUNT = """
import ctypes
from anomalens.process_memory import return_large_blocks
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if ASKED:
    return_large_blocks()
# What is freed raises the size from which glibc maps blocks one by one, unless that is settled.
libc.free(libc.malloc(8_000_000))
before = libc.mallinfo2().hblks
block = libc.malloc(4_000_000)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is asked of glibc")
@pytest.mark.parametrize(("asked", "mapped"), [(False, 0), (True, 1)])
def test_large_blocks_are_mapped_one_by_one(asked: bool, mapped: int) -> None:
    program = _COUNT.replace("ASKED", str(asked))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if "mallinfo2" in ran.stderr:
        pytest.skip("this C library does not tell how it keeps memory")
    assert int(ran.stdout) == mapped, ran.stderr
