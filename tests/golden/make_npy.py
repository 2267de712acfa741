"""Writes small .npy files with NumPy, one of each kind that tenon reads. Needs numpy; run: python make_npy.py"""
import pathlib

import numpy as np

folder = pathlib.Path(__file__).parent / "npy"
folder.mkdir(exist_ok=True)
base = np.arange(24).reshape(2, 3, 4)
for name in ("float16", "float32", "float64", "int8", "uint8", "int32", "int64"):
    np.save(folder / f"{name}.npy", base.astype(name))
np.save(folder / "bool.npy", base % 3 == 0)
np.save(folder / "fortran.npy", np.asfortranarray(base.astype("float32")))
np.save(folder / "scalar.npy", np.float32(2.5))
np.save(folder / "vector.npy", np.arange(3.0))
np.save(folder / "empty.npy", np.zeros((0, 5), "float32"))
np.save(folder / "big_endian.npy", base.astype(">f4"))
for version in ((2, 0), (3, 0)):
    with open(folder / f"version{version[0]}.npy", "wb") as f:
        np.lib.format.write_array(f, base.astype("float32"), version=version)
