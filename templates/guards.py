"""What no resolver sees of packages that are added to an image, looked for where they are installed.

    python -I guards.py [--share A,B]… [--optional PACKAGE:PATTERN]… (--all | PACKAGE…)

Two packages write the same file; a library that a compiled module needs is nowhere; a module is compiled for another
NumPy; a second CUDA major comes along; a module cannot be loaded. It runs with the Python whose packages are meant, in
a build or a container, and leaves nothing behind. Names are the packages that were added: whatever else is there counts
as the image, which is proven. `--all` takes everything as added. What is named in a `--share` may write the same files;
a file of PACKAGE that matches the PATTERN of an `--optional` may lack a library.

What is found is a line each on stderr, `kit-guard: ` and a JSON object, and a JSON list of all on stdout. It ends with
1 when something found stops a build, else with 0. kit/environment/guards.py makes sentences of it.
"""
# Strings and not paths: there are a hundred thousand of them.
# ruff: noqa: PTH100, PTH105, PTH110, PTH118, PTH119, PTH120, PTH123

import argparse
import contextlib
import csv
import fnmatch
import importlib
import importlib.machinery
import json
import mmap
import os
import re
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

MARK = "kit-guard: "
MOST_FINDINGS = 50
IMPORT_SECONDS = 120  # without another package imported

# The driver's own libraries, which a container gets when it is started on a machine with a GPU.
DRIVER = re.compile(r"lib(cuda|cudadebugger|nvcuvid|nvoptix|nvidia-.+|(GLX|EGL|GLESv2|GLESv1_CM)_nvidia)\.so(\.\d+)*")
# CUDA's libraries whose number is that of CUDA; who brings a copy of its own alone puts a hash into the name.
CUDA = re.compile(r"lib(?:cudart|cublas|cublasLt|nvrtc)(-[0-9a-f]{6,})?\.so\.(\d+)[.\d]*")
# Of another C library than this one: for machines of another kind, and never loaded here.
FOREIGN = re.compile(r"libc\.musl-.*|ld-musl-.*|libc\.so")
# What many wheels leave beside their packages by mistake: nobody imports it from there.
CLUTTER = re.compile(
    r"(tests?|testing|docs?|examples?|samples?|benchmarks?|scripts)/.*|share/(doc|man)/.*|[A-Z_.-]+"
    r"|[^/]*\.(md|rst|txt|toml|cfg|ini|ya?ml)|(conftest|setup)\.py"
)
# An `__init__.py` that says no more than that others have a part in the package, too.
NAMESPACE = re.compile(r"extend_path|declare_namespace")
SMALL = 1000  # bytes: one that says more than that is longer

# What an import says where compiled code does not fit what it stands on. Whatever else goes wrong in one (there is no
# GPU, no display, no network; an argument is missing) is no fault of what is installed.
LIBRARY = re.compile(r"([\w.+-]+): cannot open shared object file")
NUMPY = re.compile(
    r"compiled using NumPy 1\.x|numpy\._?core\.multiarray failed to import|numpy\.dtype size changed"
    r"|compiled against (NumPy C-)?A[BP]I version 0x"
)
BINARY = re.compile(
    r"undefined symbol: \w+|version `[A-Za-z]+_[\w.]+' not found|wrong ELF class|invalid ELF header"
    r"|cannot enable executable stack"
)
# What is printed where the error itself was caught, as NumPy does it.
PRINTED = re.compile(r"compiled using NumPy 1\.x|compiled against (NumPy C-)?A[BP]I version 0x")


class Distribution:
    """A package that is installed: its name, and its files with the hash and size that its RECORD has."""

    def __init__(self, info, site):
        name, _, self.version = info.name[: -len(".dist-info")].rpartition("-")
        self.name = canonical(name)
        self.info = info
        self.site = site
        self.files = {}
        try:
            with open(os.path.join(info, "RECORD"), encoding="utf-8", newline="") as lines:
                rows = [row for row in csv.reader(lines) if row]
        except OSError:
            return
        for path, *rest in rows:
            if path.endswith(".pyc") or ".dist-info/" in path:
                continue
            if path.startswith(("/", "..")):
                path = os.path.relpath(os.path.join(site, path), site)
            self.files[path] = tuple(rest)

    def requires(self):
        """The names of what its metadata asks for, with any extra."""
        try:
            with open(os.path.join(self.info, "METADATA"), encoding="utf-8", errors="replace") as file:
                text = file.read().partition("\n\n")[0]
        except OSError:
            return set()
        return {canonical(name) for name in re.findall(r"^Requires-Dist:\s*([\w.-]+)", text, re.MULTILINE)}

    def modules(self):
        """What can be imported of it, outermost first: `google.protobuf`, `_cffi_backend`."""
        found = set()
        for path in self.files:
            folder, name = os.path.split(path)
            stem = module_stem(name)
            if stem == "__init__":
                found.add(folder.replace("/", "."))
            elif not folder and stem and (not stem.startswith("_") or not name.endswith(".py")):
                found.add(stem)
        good = {m for m in found if all(part.isidentifier() for part in m.split(".")) and not CLUTTER.match(m + "/")}
        return sorted(m for m in good if not any(m.startswith(other + ".") for other in good))


class Elf:
    """What the loader reads of a shared object."""

    def __init__(self, path, needed, rpath, runpath, names):
        self.path = path
        self.needed = needed
        self.rpath = rpath
        self.runpath = runpath
        self.is_module = b"\0PyInit_" in names


class Environment:
    """All packages of the Python that runs this, and what the loader finds without them."""

    def __init__(self, added, everything):
        self.sites = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
        self.packages = {}
        for site in self.sites:
            for info in sorted(Path(site).glob("*.dist-info")):
                package = Distribution(info, site)
                self.packages[package.name] = package
        names = self.packages if everything else dict.fromkeys(map(canonical, added))
        self.added = [self.packages[name] for name in names if name in self.packages]
        self.image = {} if everything else {n: p for n, p in self.packages.items() if p not in self.added}
        with open(os.path.realpath(sys.executable), "rb") as file:
            self.machine = elf_kind(file.read(20))
        self.loader = loader_cache()
        self.library_folders = [f for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f]
        # The image's CUDA, from its packages or its system; of all packages together the one that most bring.
        proven = self.packages if everything else self.image
        counts = Counter(major for p in proven.values() for major, _, _ in cuda_libraries(p.files))
        counts = counts or Counter(major for major, _, _ in cuda_libraries(self.loader))
        self.cuda = counts.most_common(1)[0][0] if counts else 0
        # Which packages have a library of this name.
        self.providers = {}
        for package in self.packages.values():
            for path in package.files:
                if ".so" in path:
                    self.providers.setdefault(os.path.basename(path), set()).add(package.name)
        self._elves = {}

    def elves(self, package):
        """The shared objects of a package, by their path in it; not those for another machine or C library."""
        if package.name not in self._elves:
            found = {}
            for path in package.files:
                if ".so" in os.path.basename(path):
                    elf = read_elf(os.path.join(package.site, path), self.machine)
                    if elf and not any(map(FOREIGN.fullmatch, elf.needed)):
                        found[path] = elf
            self._elves[package.name] = found
        return self._elves[package.name]

    def around(self, package):
        """The names of a package and all that it requires, directly or not."""
        found, waiting = set(), [package.name]
        while waiting:
            name = waiting.pop()
            if name in self.packages and name not in found:
                found.add(name)
                waiting += self.packages[name].requires()
        return found

    def is_found(self, library, elf, around):
        """Whether the loader has a library when this object is loaded: it, or a package that is imported before, has
        the folder; or it is the system's, or comes with the driver.
        """
        if "/" in library or library in self.loader or DRIVER.fullmatch(library):
            return True
        origin = os.path.dirname(elf.path)
        for folder in (*elf.rpath, *elf.runpath, *self.library_folders):
            folder = folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin)
            if os.path.exists(os.path.join(folder, library)):
                return True
        having = self.providers.get(library, set())
        return any(name in around or name in self.image for name in having)

    def owner(self, text):
        """The added package of whose file a text speaks last; None when it speaks of none."""
        for site in self.sites:
            for path in reversed(re.findall(re.escape(site) + r"/([^\s\"':,]+)", text)):
                for package in self.added:
                    if path in package.files:
                        return package
        return None


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def module_stem(name):
    """The name a file is imported by; empty for one that is none."""
    for suffix in (".py", *importlib.machinery.EXTENSION_SUFFIXES):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return ""


def loader_cache():
    """The libraries that the loader finds by name in the system's folders."""
    for program in ("/sbin/ldconfig", "/usr/sbin/ldconfig"):
        if os.path.exists(program):
            done = subprocess.run([program, "-p"], stdout=subprocess.PIPE, text=True, check=False)
            lines = re.findall(r"^\s+(\S+) \(([^)]*)\) => \S+$", done.stdout, re.MULTILINE)
            # `libc6` alone is the 32-bit one beside `libc6,x86-64`.
            return {name for name, kind in lines if "," in kind or sys.maxsize < 2**32}
    return set()


def elf_kind(header):
    """(class, byte order, machine) of an ELF file; None for another file's header."""
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[4] not in (1, 2) or header[5] not in (1, 2):
        return None
    return header[4], header[5], struct.unpack_from("<H" if header[5] == 1 else ">H", header, 18)[0]


def read_elf(path, machine):
    """A shared object as the loader sees it; None for what is none of this machine's, or damaged."""
    try:
        with open(path, "rb") as file:
            return parse_elf(path, file, machine)
    except (OSError, struct.error, ValueError):
        return None


def parse_elf(path, file, machine):
    header = file.read(64)
    if elf_kind(header) is None or elf_kind(header) != machine:
        return None
    order = "<" if header[5] == 1 else ">"
    wide = header[4] == 2
    # The program headers: what is loaded where, and the dynamic section.
    (start,) = struct.unpack_from(order + ("Q" if wide else "I"), header, 32 if wide else 28)
    size, count = struct.unpack_from(order + "HH", header, 54 if wide else 42)
    segments = []
    for index in range(count):
        file.seek(start + index * size)
        values = struct.unpack(order + ("IIQQQQ" if wide else "IIIII"), file.read(40 if wide else 20))
        kind, offset, address, length = (values[0], *values[2:4], values[5]) if wide else (*values[:3], values[4])
        segments.append((kind, offset, address, length))
    dynamic = next(((offset, length) for kind, offset, _, length in segments if kind == 2), None)
    if dynamic is None:
        return None
    pair = struct.Struct(order + ("qQ" if wide else "iI"))
    data = read_at(file, *dynamic)
    entries = []
    for at in range(0, len(data) - pair.size + 1, pair.size):
        tag, value = pair.unpack_from(data, at)
        if tag == 0:
            break
        entries.append((tag, value))
    address, length = dict(entries).get(5, -1), dict(entries).get(10, 0)
    place = [offset + address - at for kind, offset, at, n in segments if kind == 1 and at <= address < at + n]
    names = read_at(file, place[0], length) if place else b""

    def texts(tag):
        return [names[at : names.index(b"\0", at)].decode("utf-8", "replace") for t, at in entries if t == tag]

    def folders(tag):
        return [folder for text in texts(tag) for folder in text.split(":") if folder]

    return Elf(path, needed=texts(1), rpath=folders(15), runpath=folders(29), names=names)


def read_at(file, offset, length):
    if length > 2**28:
        raise ValueError("no shared object has so much of it")
    file.seek(offset)
    return file.read(length)


def check_owners(env, share):
    """Paths that two packages write, and not the same into them."""
    owners = {}
    for package in env.packages.values():
        for path, digest in package.files.items():
            owners.setdefault(path, []).append((package, digest))
    found = {}
    for path, having in owners.items():
        if len(having) == 1 or CLUTTER.fullmatch(path) or is_namespace(path, having):
            continue
        for index, (one, digest) in enumerate(having):
            for other, other_digest in having[index + 1 :]:
                if digest == other_digest or not any(digest) or not any(other_digest):
                    continue
                pair = (one, other) if one in env.added else (other, one)
                names = {one.name, other.name}
                if pair[0] in env.added and not any(names <= group for group in share):
                    found.setdefault(tuple(package.name for package in pair), []).append(path)
    for (package, other), paths in found.items():
        # Of a program that two packages bring, the later one stands: seldom what breaks anything.
        code = [path for path in paths if not path.startswith("..")]
        yield {
            "guard": "owners",
            "package": package,
            "other": other,
            "file": min(code or paths, key=lambda path: (".so" not in path, path)),
            "count": len(paths),
            "stops": bool(code),
        }


def is_namespace(path, having):
    """Whether an `__init__.py` says no more than that others have a part in its package, as far as can be told."""
    if os.path.basename(path) != "__init__.py" or not all(size_of(record) <= SMALL for _, record in having):
        return False
    return bool(NAMESPACE.search(read_text(os.path.join(having[0][0].site, path))))


def size_of(record):
    return int(record[1]) if len(record) > 1 and record[1].isdecimal() else 0


def check_libraries(env, optional):
    """Libraries that modules of the added packages need, themselves or by what they load, and that are nowhere. It
    stops a build where no module of the package is without fault: else what lacks something may never be imported.

    Of other shared objects, many of which are plug-ins that nobody asks for, CUDA's libraries of another major alone.
    """
    for package in env.added:
        around, elves = env.around(package), env.elves(package)
        missing = {}
        for path, elf in elves.items():
            libraries = [library for library in elf.needed if not env.is_found(library, elf, around)]
            if libraries and not any(package.name == n and fnmatch.fnmatch(path, p) for n, p in optional):
                missing[path] = libraries
        # The same in several variants (`libx_cuda118.so` beside `libx_cuda126.so`), of which one is loaded.
        served = {variant(path) for path in elves if path not in missing}
        missing = {path: libraries for path, libraries in missing.items() if variant(path) not in served}
        modules = {path: loaded_with(path, elves) & set(missing) for path, elf in elves.items() if elf.is_module}
        lacking = set().union(*modules.values())
        found = {}
        for path, libraries in missing.items():
            for library in libraries:
                match = CUDA.fullmatch(library)
                if match and env.cuda and int(match[2]) != env.cuda:
                    key = ("cuda", ("needs", int(match[2])), ("image", env.cuda), ("library", library))
                    found.setdefault(key, []).append((path, library))
                elif path in lacking:
                    found.setdefault(("libraries", ("library", library)), []).append((path, library))
        for (guard, *facts), files in found.items():
            yield {
                "guard": guard,
                "package": package.name,
                **dict(facts),
                "file": min(files)[0],
                "count": len({path for path, _ in files}),
                "stops": guard == "cuda" or all(modules.values()),
            }


def variant(path):
    """A path without what tells apart files that were built for several versions or kinds of something."""
    name = os.path.basename(path)
    stem = (module_stem(name) or name).partition(".")[0]
    return os.path.join(os.path.dirname(path), re.sub(r"\d+", "#", stem))


def loaded_with(path, elves):
    """A shared object and those of its package that it needs, directly or not."""
    by_name = {os.path.basename(other): other for other in elves}
    found, waiting = set(), [path]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [by_name[library] for library in elves[path].needed if library in by_name]
    return found


def check_numpy(env):
    """Modules that were compiled with the headers of NumPy 1 where NumPy 2 is: those of 2 look for its core under both
    names, those of 1 under the old one alone.
    """
    numpy = env.packages.get("numpy")
    if numpy is None or numpy.version.startswith(("0.", "1.")):
        return
    for package in env.added:
        old = [
            path
            for path, elf in env.elves(package).items()
            if elf.is_module
            and package is not numpy
            and has_text(elf.path, b"numpy.core._multiarray_umath")
            and not has_text(elf.path, b"numpy._core._multiarray_umath")
        ]
        if old:
            yield {
                "guard": "numpy",
                "package": package.name,
                "numpy": numpy.version,
                "file": min(old),
                "count": len(old),
                "stops": True,
            }


def has_text(path, text):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(text) >= 0


def check_cuda(env):
    """Packages that bring CUDA's libraries of another major than the image's, or of several where it has none."""
    known = env.cuda
    for package in env.added:
        having = cuda_libraries(package.files)
        known = known or next((major for major, is_private, _ in having if not is_private), 0)
        for major, is_private, path in having:
            if known and major != known:
                # A copy under a name of its own lives beside the other one; two of one name do not.
                yield {
                    "guard": "cuda",
                    "package": package.name,
                    "brings": major,
                    "image": known,
                    "file": path,
                    "count": 1,
                    "stops": not is_private,
                }


def cuda_libraries(paths):
    """(major, whether under a name of its own, path) of each of CUDA's libraries among them."""
    matches = ((CUDA.fullmatch(os.path.basename(path)), path) for path in paths)
    return sorted((int(match[2]), bool(match[1]), path) for match, path in matches if match)


def check_imports(env):
    """Import what has compiled code, without a GPU and with a home that is thrown away."""
    jobs = [(package.name, package.modules()) for package in env.added if env.elves(package)]
    jobs = [(name, modules) for name, modules in jobs if modules]
    while jobs:
        with tempfile.TemporaryDirectory(prefix="kit-guards-") as folder:
            ended = import_elsewhere(jobs, folder)
            for index, (name, _) in enumerate(jobs):
                result = read_json(os.path.join(folder, name + ".json"))
                text = read_text(os.path.join(folder, name + ".out"))
                if result is None:
                    # It took the process with it, by a crash or by never ending: the others are tried in a new one.
                    yield {"guard": "import", "package": name, "text": ended, "stops": False}
                    jobs = jobs[index + 1 :]
                    break
                for fault in result:
                    yield from faults_of(env, name, fault)
                if match := PRINTED.search(text):
                    yield numpy_fault(env, name, text, match)
            else:
                return


def import_elsewhere(jobs, folder):
    """Import them in another process, which writes what came of each into the folder; returns how it ended."""
    with open(os.path.join(folder, "jobs.json"), "w", encoding="utf-8") as file:
        json.dump(jobs, file)
    home = {name: folder for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")}
    child = subprocess.Popen(
        [sys.executable, "-I", "-B", os.path.abspath(__file__), "--import", folder],
        cwd=folder,
        env={**os.environ, **home, "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        done, since = 0, time.monotonic()
        while child.poll() is None:
            time.sleep(0.02)
            now = sum(os.path.exists(os.path.join(folder, name + ".json")) for name, _ in jobs)
            if now > done:
                done, since = now, time.monotonic()
            if time.monotonic() - since > IMPORT_SECONDS:
                return f"did not end within {IMPORT_SECONDS} s"
        code = child.returncode
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended Python with {code}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what the imports left running too
        child.wait()


def import_all(folder):
    """The other process."""
    for name, modules in read_json(os.path.join(folder, "jobs.json")) or []:
        out = os.open(os.path.join(folder, name + ".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        faults = []
        for module in modules:
            try:
                importlib.import_module(module)
            except BaseException as e:  # SystemExit too
                faults.append("".join(traceback.format_exception(type(e), e, e.__traceback__))[-20000:])
        sys.stdout.flush()
        path = os.path.join(folder, name + ".json")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(faults, file)
        os.replace(path + ".new", path)
    os._exit(0)


def faults_of(env, name, text):
    """What an import that failed says of the installation."""
    owner = env.owner(text)
    package = owner.name if owner else name
    if match := NUMPY.search(text):
        yield numpy_fault(env, name, text, match)
    elif match := BINARY.search(text):
        yield {"guard": "import", "package": package, "text": match[0], "stops": True}
    else:
        for library in sorted(set(LIBRARY.findall(text))):
            match = CUDA.fullmatch(library)
            facts = {"package": package, "library": library, "file": "", "count": 1, "stops": True}
            if match and env.cuda and int(match[2]) != env.cuda:
                yield {"guard": "cuda", "needs": int(match[2]), "image": env.cuda, **facts}
            elif not DRIVER.fullmatch(library):
                yield {"guard": "libraries", **facts}


def numpy_fault(env, name, text, match):
    # What an import prints of several faults: the first is where it began.
    owner = env.owner(text[: match.start()] or text) or env.owner(text)
    numpy = env.packages.get("numpy")
    return {
        "guard": "numpy",
        "package": owner.name if owner else name,
        "numpy": numpy.version if numpy else "",
        "file": "",
        "count": 1,
        "text": match[0],
        "stops": True,
    }


def read_json(path):
    try:
        return json.loads(read_text(path))
    except ValueError:
        return None


def read_text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(2**20)
    except OSError:
        return ""


def merged(findings):
    """Each fault once: what is seen in the files and again in an import is one, and so is a CUDA major."""
    found = {}
    for finding in findings:
        parts = ("guard", "package", "other", "brings", "needs")
        parts = (*parts, "library") if finding["guard"] == "libraries" else parts
        first = found.setdefault(tuple(str(finding.get(part, "")) for part in parts), finding)
        first["stops"] = first["stops"] or finding["stops"]
    return sorted(found.values(), key=lambda finding: (not finding["stops"], finding["guard"], finding["package"]))


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--share", action="append", default=[])
    parser.add_argument("--optional", action="append", default=[])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--import", dest="folder")
    parser.add_argument("packages", nargs="*")
    options = parser.parse_args()
    if options.folder:
        import_all(options.folder)
    env = Environment(options.packages, options.all)
    share = [set(map(canonical, names.split(","))) for names in options.share]
    optional = [(canonical(text.partition(":")[0]), text.partition(":")[2]) for text in options.optional]
    findings = merged(
        [
            *check_owners(env, share),
            *check_libraries(env, optional),
            *check_numpy(env),
            *check_cuda(env),
            *check_imports(env),
        ]
    )
    for finding in findings[:MOST_FINDINGS]:
        print(MARK + json.dumps(finding), file=sys.stderr)
    print(json.dumps(findings))
    return int(any(finding["stops"] for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
