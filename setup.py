"""Builds the kernels, a library for each instruction set; all else is in pyproject.toml.

Where there is no compiler the install goes on without them: sparing then computes in torch.
"""

import platform
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = [
    f"sparing/kernels/src/{name}.cpp"
    for name in (
        "attention",
        "library",
        "pack",
        "pass",
        "product",
        "threads",
        "top",
    )
]
FLAGS = ["-std=c++17", "-g0", "-ffp-contract=off", "-fvisibility=hidden", "-Wno-psabi", "-pthread"]
AVX2 = "-O3 -mtune=haswell -mavx2 -mfma -mf16c"
VARIANTS = {
    "x86_64": {
        "plain": "-O2",  # no lanes to fill: more would only take longer
        "avx2": AVX2,
        "avx512": AVX2 + " -mavx512f -mavx512bw -mavx512vl -mavx512vnni -mprefer-vector-width=256",
    },
    "aarch64": {"plain": "-O2", "neon": "-O3 -march=armv8.2-a+dotprod"},
}
VARIANTS["AMD64"], VARIANTS["arm64"] = VARIANTS["x86_64"], VARIANTS["aarch64"]


class Build(build_ext):
    """Names a library after its variant alone: Python is none of its dependencies."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []


setup(
    cmdclass={"build_ext": Build},
    ext_modules=[
        Extension(
            f"sparing.kernels.lib.{variant}",
            SOURCES,
            extra_compile_args=[*FLAGS, *flags.split()],
            extra_link_args=["-pthread", *([] if sys.platform == "darwin" else ["-Wl,-s"])],
            language="c++",
            optional=True,
        )
        for variant, flags in VARIANTS.get(platform.machine(), {"plain": "-O2"}).items()
    ],
)
