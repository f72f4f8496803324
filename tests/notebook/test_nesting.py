"""The opt-in to nested loops; that kernels refuse it is tested in kernels."""

from __future__ import annotations

CODE = """
import asyncio, numpy as np, voiceprint_nb as vp
clips = [(np.random.default_rng(n).normal(scale=0.1, size=32_000), 16_000) for n in range(3)]
before = vp.voiceprints(clips, service="local", ledger=False, progress=False)
assert not hasattr(asyncio, "_nest_patched")
vp.enable_nesting()
assert hasattr(asyncio, "_nest_patched")

async def inner():
    await asyncio.sleep(0)
    return 3

async def outer():
    run = vp.submit(clips, service="local", ledger=False, progress=False)
    return asyncio.get_event_loop().run_until_complete(inner()), await run

three, after = asyncio.get_event_loop().run_until_complete(outer())
print(three, after["voiceprint"].equals(before["voiceprint"]))
"""


def test_it_is_applied_only_when_called(run_python):
    done = run_python("-c", CODE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 True\n"
