"""Generate src/mycel/api from api/*.proto: messages, type stubs and grpclib service stubs.

`python tools/gen_api.py` writes, `--check` fails when what is checked in is stale. protoc and both plugins come from
the development group. The proto path maps `mycel/api/` onto `api/`, so that generated modules import each other as
`mycel.api.…` without any rewriting; message full names (`flow.Flow`) come from the packages inside the files.
"""

import os
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path("mycel/api")


def generate(out: Path) -> dict[Path, bytes]:
    """Run protoc into `out` and return path (relative to src) → content."""
    protos = sorted(path.name for path in (ROOT / "api").glob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{TARGET}={ROOT / 'api'}",
        f"-I{well_known}",
        f"--plugin=protoc-gen-grpclib_python={Path(sys.executable).parent / 'protoc-gen-grpclib_python'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpclib_python_out={out}",
        *(str(TARGET / name) for name in protos),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed: mend the .proto file it names above")
    files = {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.py*"))}
    # A file without a service still gets an empty grpclib module: drop it.
    return {
        path: body for path, body in files.items() if not (path.name.endswith("_grpc.py") and b"class " not in body)
    }


def main() -> int:
    """Write the generated files, or with --check compare them with the tree."""
    check = "--check" in sys.argv[1:]
    src = ROOT / "src"
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONPATH", None)
        wanted = generate(Path(folder))
    present = {
        path.relative_to(src)
        for pattern in ("*_pb2.py", "*_pb2.pyi", "*_grpc.py")
        for path in (src / TARGET).glob(pattern)
    }
    stale = [path for path, body in wanted.items() if path not in present or (src / path).read_bytes() != body]
    extra = sorted(present - set(wanted))
    if check:
        for path in [*stale, *extra]:
            print(f"src/{path} is stale: run `make gen`", file=sys.stderr)
        return 1 if stale or extra else 0
    for path in stale:
        (src / path).write_bytes(wanted[path])
        print(f"wrote src/{path}")
    for path in extra:
        (src / path).unlink()
        print(f"removed src/{path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
