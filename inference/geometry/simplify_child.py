"""The child process of `simplify`: `IN OUT TARGET_FACES MEMORY_BYTES CPU_SECONDS`.

Limits itself before it loads anything, reads a mesh, writes a mesh. Its exit code is the only other answer.
"""

import os
import resource
import sys


def main(arguments: list[str]) -> None:
    """Simplify one file."""
    source, result, target, memory_bytes, cpu_seconds = arguments
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds), int(cpu_seconds)))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    from pathlib import Path

    import fast_simplification
    import numpy as np

    from inference.geometry import mesh as meshes

    mesh = meshes.load(Path(source))
    # On exact planes and cylinders the quadrics are singular and vertices fly off; a noise of a hundred
    # thousandth of the object cures that. A low `agg` nearly always keeps the result manifold (both
    # measured); where it does not, other noise may.
    for attempt, agg in enumerate((3.0, 3.0, 2.0, 5.0)):
        noise = np.random.default_rng(attempt).normal(0.0, 1e-5 * mesh.diagonal(), mesh.vertices.shape)
        noisy = (mesh.vertices + noise).astype(np.float32)
        vertices, faces = fast_simplification.simplify(noisy, mesh.faces, target_count=int(target), agg=agg)
        faces = meshes.without_folds(np.asarray(faces, np.int32))
        made = meshes.Mesh(vertices=np.asarray(vertices, np.float32), faces=faces).check()
        if made.is_manifold() or not mesh.is_manifold():
            break
    meshes.save(made, Path(result))


if __name__ == "__main__":
    main(sys.argv[1:])
