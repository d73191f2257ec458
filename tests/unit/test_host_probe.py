"""The probe script run for real: by several shells, on a machine made of a folder and of programs that play a part."""

import http.server
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import kit.host
from kit import process
from kit.engine import Engine
from kit.errors import BadInputError
from kit.facts.host import Endpoint, HostGpu
from kit.host import probe, read_gpus, read_host
from kit.host.assemble import assemble
from kit.host.parse_gpus import Driver
from kit.host.sections import split

DATA = Path(__file__).parent / "data" / "host"
SCRIPT = Path(probe.__file__).with_name("probe.sh")
# What the script needs of a system; nothing else is on PATH in these tests.
TOOLS = "cat cut date df getconf grep head id ls mkdir mktemp mv readlink rm sed sleep sort stat timeout tr true uname"
ID = "ab12" * 16
# Of the GPU in data/host/smi-a100-mig-535.xml, one of its instances left out.
LIST = """GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-513536b6-7d19-9063-b049-1e69664bb298)
  MIG 1g.20gb     Device  0: (UUID: MIG-a686709d-6dc2-542a-8851-0d2508448c10)
"""


class Machine:
    """A folder that stands for / and one with the programs there are."""

    def __init__(self, folder, monkeypatch, shell="dash"):
        self.root, self.bin = folder / "root", folder / "bin"
        self.bin.mkdir(parents=True)
        for tool in TOOLS.split():
            path = shutil.which(tool)
            assert path, tool
            (self.bin / tool).symlink_to(path)
        (self.bin / "sh").symlink_to(shutil.which(shell) or shutil.which("sh"))
        self.file("proc/meminfo", "MemTotal:       24684084 kB\n")
        (self.root / "dev/shm").mkdir(parents=True)
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setenv("KIT_TEST_ROOT", str(self.root))
        monkeypatch.setenv("TMPDIR", str(folder))
        self.temporary = folder

    def file(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def program(self, name, body):
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\n{body}\n")
        path.chmod(0o755)

    def says(self, name, **answers):
        """A program that prints a text for each first word of its arguments, and fails for others."""
        cases = []
        for word, text in answers.items():
            file = self.bin / f".{name}-{word}"
            file.write_text(text)
            cases.append(f'*{word.replace("_", "-")}*) cat "{file}" ;;')
        self.program(name, 'case "$*" in ' + " ".join(cases) + " *) exit 1 ;; esac")

    def gpu(self, report="a100-mig-535"):
        listed = self.file(".list", LIST)
        self.program(
            "nvidia-smi",
            f"""case "$*" in
'-q -x') cat '{DATA}/smi-{report}.xml' ;;
--query-gpu*) echo '0, GPU-513536b6-7d19-9063-b049-1e69664bb298, 8.0' ;;
-L) cat '{listed}' ;;
*) exit 1 ;;
esac""",
        )

    def docker(self, containers=()):
        self.says(
            "docker",
            info=(DATA / "docker-28-private.json").read_text(),
            buildx="github.com/docker/buildx 0.29.1+ds1 0.29.1+ds1-1\n",
            context="unix:///var/run/docker.sock\n",
            ps="".join(json.dumps(row) + "\n" for row in containers),
        )


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path / "machine", monkeypatch)


def shells():
    return [name for name in ("dash", "bash") if shutil.which(name)]


def test_shellcheck_finds_nothing():
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), SCRIPT], capture_output=True, text=True, check=False
    )
    assert checked.stdout == ""
    assert checked.returncode == 0


@pytest.mark.parametrize("shell", shells())
def test_a_whole_machine(tmp_path, monkeypatch, shell):
    machine = Machine(tmp_path / "machine", monkeypatch, shell)
    device = machine.root / "sys/bus/pci/devices/0000:01:00.0"
    for name, value in (("vendor", "0x10de"), ("class", "0x030200"), ("device", "0x20b2")):
        machine.file(f"sys/bus/pci/devices/0000:01:00.0/{name}", value + "\n")
        other = {"vendor": "0x8086", "class": "0x030000", "device": "0x1234"}[name]
        machine.file(f"sys/bus/pci/devices/0000:00:02.0/{name}", other + "\n")
        sound = {"vendor": "0x10de", "class": "0x040300", "device": "0x10fa"}[name]
        machine.file(f"sys/bus/pci/devices/0000:01:00.1/{name}", sound + "\n")
    (device / "driver").symlink_to("../../../../bus/pci/drivers/nvidia")
    machine.file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue\n")
    machine.file("proc/modules", "nvidia_uvm 1 0 - Live 0x0\nnvidia 5 1 nvidia_uvm, Live 0x0\n")
    machine.file("proc/version", "Linux version 5.15.0 (buildd@host)\n")
    machine.file("etc/os-release", 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nID=ubuntu\n')
    machine.file(
        "etc/nvidia-container-runtime/config.toml", "[nvidia-container-cli]\n#no-cgroups = false\nno-cgroups = true\n"
    )
    spec = (DATA / "cdi-nvidia-ctk.yaml").read_text().replace("/run/nvidia/driver", "")
    machine.file("etc/cdi/nvidia.yaml", spec)
    machine.file("etc/cdi/other.yaml", "kind: amd.com/gpu\n")
    for name in ("dev/nvidia0", "dev/nvidiactl", "usr/bin/nvidia-cdi-hook"):
        machine.file(name, "")
    machine.file("usr/local/share/ca-certificates/lab.crt", "")
    machine.file(
        "proc/net/tcp", "  sl  local\n   0: 0100007F:22B8 00000000:0000 0A 0:0 0\n   1: 0100007F:1776 0:0 01 0:0 0\n"
    )
    # Real files, so that their names say the driver's version.
    library = tmp_path / "libnvidia-ml.so.535.54.03"
    library.write_text("")
    machine.program("ldconfig", f"printf '\\tlibnvidia-ml.so.1 (libc6,x86-64) => {library}\\n'")
    machine.says("nvidia-ctk", version="NVIDIA Container Toolkit CLI version 1.17.8\n")
    machine.gpu()
    machine.docker([[ID, "kit-one", "Up 1 second", "torch-cu126", "jupyter", "1:1", "--gpus=all", "", ""]])
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2@proxy.example:3128")
    host = read_host()
    assert (host.os, host.os_id, host.driver, host.driver_cuda) == ("Ubuntu 24.04.3 LTS", "ubuntu", "535.54.03", "12.2")
    assert (host.driver_library, host.driver_problem) == ("535.54.03", "")
    assert [(gpu.address, gpu.device_id, gpu.driver) for gpu in host.pci_gpus] == [("0000:01:00.0", "20b2", "nvidia")]
    (gpu,) = host.gpus
    assert (gpu.name, gpu.compute_capability, gpu.processes) == ("NVIDIA A100-SXM4-80GB", "8.0", ())
    assert gpu.mig_instances[0].uuid == "MIG-a686709d-6dc2-542a-8851-0d2508448c10"
    assert gpu.mig_instances[0].profile == "1g.20gb"
    assert gpu.mig_instances[1].uuid == ""
    assert (host.toolkit.version, host.toolkit.no_cgroups) == ("1.17.8", True)
    (cdi,) = host.cdi_specs
    assert cdi.path.endswith("/etc/cdi/nvidia.yaml")
    assert cdi.modified == pytest.approx(time.time(), abs=60)
    assert cdi.missing_files == (
        "/lib/x86_64-linux-gnu/libcuda.so.999.88.77",
        "/lib/x86_64-linux-gnu/vdpau/libvdpau_nvidia.so.999.88.77",
    )
    assert (host.engine.program, host.engine.version, host.engine.problem) == ("docker", "28.5.2+dfsg4", "")
    assert (host.engine.endpoint, host.engine.buildx) == ("unix:///var/run/docker.sock", "0.29.1+ds1")
    assert [(c.name, c.devices) for c in host.containers] == [("kit-one", ("all",))]
    assert host.memory_bytes == 25276502016
    assert host.shell_proxies == ("HTTPS_PROXY",)
    assert (host.has_private_ca, host.busy_ports) == (True, (8888,))
    assert host.disk_path != ""
    assert host.disk_free_bytes > 0
    assert host.unread == ()
    assert not list(machine.temporary.glob("kit-host*"))


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_busybox_alone_is_enough(tmp_path, monkeypatch):
    machine = Machine(tmp_path / "machine", monkeypatch, "dash")
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    for name in ("sh", *TOOLS.split()):
        if name != "getconf":  # not in busybox; musl's systems bring it themselves
            (machine.bin / name).unlink()
            (machine.bin / name).symlink_to(busybox)
    machine.file("etc/cdi/nvidia.yaml", (DATA / "cdi-nvidia-ctk.yaml").read_text())
    machine.gpu("blackwell-590")
    machine.docker()
    host = read_host()
    assert host.unread == ()
    assert (host.driver, host.gpus[0].memory_mib, host.engine.version) == ("590.44.01", 97887, "28.5.2+dfsg4")
    assert len(host.cdi_specs[0].missing_files) == 5
    assert (host.shm_bytes is not None, host.disk_free_bytes is not None) == (True, True)


def test_a_machine_with_nothing(machine):
    host = read_host()
    assert (host.driver, host.gpus, host.pci_gpus, host.cdi_specs) == ("", (), (), ())
    assert (host.engine.program, host.engine.problem, host.podman) == ("", "missing", "")
    assert (host.toolkit.version, host.toolkit.no_cgroups, host.has_private_ca) == ("", None, False)
    assert host.unread == ()


def quick_timeout(machine):
    """A `timeout` that waits half a second instead of what it is told."""
    machine.program(
        "timeout", "shift 3; exec " + str(shutil.which("timeout", path="/usr/bin:/bin")) + ' -s KILL 0.5 "$@"'
    )


def test_an_nvidia_smi_that_hangs_is_given_up(machine):
    quick_timeout(machine)
    sleep = shutil.which("sleep", path="/usr/bin:/bin")
    machine.program("nvidia-smi", f"exec {sleep} 60")
    machine.file("proc/modules", "nvidia 5 1 nvidia_uvm, Live 0x0\n")
    machine.docker()
    started = time.monotonic()
    host = read_host()
    assert time.monotonic() - started < 8
    assert host.unread == ("nvidia-smi: timed out after 10 s",)
    assert (host.driver, host.gpus, host.driver_problem) == (None, (), "")
    assert host.engine.version == "28.5.2+dfsg4"


def test_a_program_that_cannot_be_killed_does_not_keep_kit_waiting(machine):
    # Without `timeout`, and with a clock on which five seconds pass at each look.
    (machine.bin / "timeout").unlink()
    clock = machine.temporary / "clock"
    clock.write_text("1000")
    machine.program("date", f'read -r now <"{clock}"; now=$((now + 5)); echo $now >"{clock}"; echo $now')
    sleep = shutil.which("sleep", path="/usr/bin:/bin")
    machine.program("nvidia-smi", f"exec {sleep} 30")
    started = time.monotonic()
    assert read_host().unread == ("nvidia-smi: timed out after 10 s",)
    assert time.monotonic() - started < 15


def test_a_report_that_ends_early_is_said(machine):
    machine.program("nvidia-smi", "[ \"$1\" = -q ] || exit 1; echo '<?xml version=\"1.0\" ?>'; echo '<nvidia_smi_log>'")
    assert read_host().unread == ("nvidia-smi -q -x: what it printed is no whole report",)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.173", 18),
        ("No devices were found", 6),
    ],
)
def test_what_nvidia_smi_says_when_it_fails(machine, text, code):
    machine.program("nvidia-smi", f"echo '{text}'; exit {code}")
    machine.file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.195.03  Tue\n")
    host = read_host()
    assert (host.driver, host.driver_problem, host.gpus) == ("570.195.03", text.replace("\n", " "), ())
    assert host.unread == ()


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", "down"),
        ("permission denied while trying to connect to the docker API at unix:///var/run/docker.sock", "denied"),
    ],
)
def test_an_engine_that_does_not_answer(machine, said, problem):
    machine.program("docker", f"echo '{said}' >&2; exit 1")
    engine = read_host().engine
    assert (engine.program, engine.problem, engine.problem_text) == ("docker", problem, said)


def test_an_engine_that_hangs(machine):
    quick_timeout(machine)
    machine.program("docker", f"exec {shutil.which('sleep', path='/usr/bin:/bin')} 60")
    host = read_host()
    assert (host.engine.problem, host.engine.problem_text) == ("down", "took too long to answer")
    assert host.unread == tuple(f"docker {what}: timed out after 8 s" for what in ("info", "buildx version", "ps"))


def test_podman_where_there_is_no_docker(machine):
    machine.says(
        "podman", info=(DATA / "podman-4.3.json").read_text(), version="podman version 4.3.1\n", ps=f'["{ID}","one"]\n'
    )
    host = read_host()
    assert (host.engine.program, host.engine.version, host.podman) == ("podman", "4.3.1", "4.3.1")
    assert (host.containers, host.unread) == ((), ())


def test_whether_programs_go_on_after_the_last_logout(machine):
    assert read_host().lingers is None
    machine.file("run/systemd/system/x", "")
    assert read_host().lingers is False
    name = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    machine.file(f"var/lib/systemd/linger/{name}", "")
    assert read_host().lingers is True


def test_the_engine_that_is_given_is_asked(machine, tmp_path):
    machine.docker()
    own = Machine.__new__(Machine)
    own.bin = tmp_path / "own"
    own.bin.mkdir()
    raw = json.loads((DATA / "docker-28-private.json").read_text()) | {"ServerVersion": "29.0.0"}
    own.says("docker", info=json.dumps(raw), buildx="", context="unix:///own.sock\n", ps="")
    engine = Engine(program=str(own.bin / "docker"), environment={"DOCKER_HOST": "unix:///own.sock"})
    facts = read_host(engine=engine).engine
    assert (facts.version, facts.endpoint, facts.is_private) == ("29.0.0", "unix:///own.sock", False)


def test_kits_own_engine_is_known_by_its_socket(machine):
    from kit import private_engine

    machine.docker()
    engine = Engine(program="docker", environment={"DOCKER_HOST": f"unix://{private_engine.socket_path()}"})
    assert read_host(engine=engine).engine.is_private


def test_a_specification_that_may_not_be_read():
    # Root, which often runs the tests, may read everything, so the script's answer is written out.
    (spec,) = assemble(split("@@x cdi 1 /etc/cdi/nvidia.yaml\n@@x end 0 \n", "@@x")).cdi_specs
    assert (spec.path, spec.is_readable, spec.devices) == ("/etc/cdi/nvidia.yaml", False, ())


def test_a_probe_that_was_cut_off_says_so():
    host = assemble(split("@@x uname 0 \nLinux 6.1 x86_64\n", "@@x"))
    assert host.unread == ("sh: the probe ended before its end; what it had not printed is unknown",)


def test_wsl2_with_the_windows_driver_and_with_a_linux_one(machine, tmp_path):
    machine.file("proc/version", "Linux version 6.6.87.2-microsoft-standard-WSL2 (root@439a258ad544)\n")
    machine.file("usr/lib/wsl/lib/libcuda.so.1", "")
    windows, linux = tmp_path / "usr/lib/wsl/lib/libcuda.so.1", tmp_path / "usr/lib/x86_64-linux-gnu/libcuda.so.570.1"
    for path in (windows, linux):
        path.parent.mkdir(parents=True)
        path.write_text("")
    machine.program("ldconfig", f"printf '\\tlibcuda.so.1 (libc6,x86-64) => {windows}\\n'")
    host = read_host()
    assert (host.is_wsl, host.driver, host.has_linux_driver_in_wsl) == (True, None, False)
    machine.program("ldconfig", f"printf '\\tlibcuda.so.1 (libc6,x86-64) => {linux}\\n'")
    assert read_host().has_linux_driver_in_wsl


def test_processes_have_their_owners_and_containers(machine):
    machine.gpu("blackwell-590")
    machine.file("proc/116860/comm", "llama-server\n")
    machine.file("proc/116860/cgroup", f"0::/system.slice/docker-{ID}.scope\n")
    machine.docker([[ID, "lama", "Up 1 second", "", "", "", "", ""]])
    (found,) = read_host().gpus[0].processes
    assert (found.name, found.container) == ("llama-server", "lama")
    assert found.user == subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def raw(monkeypatch, groups="gpu use engine machine network", **variables):
    lines = "".join(
        f"{name}='{value}'\n" for name, value in {"KIT_MARK": "@@x", "KIT_GROUPS": groups, **variables}.items()
    )
    return process.run(["sh", "-s"], input=lines + SCRIPT.read_text(), timeout_s=60)


def test_no_secret_is_printed(machine, monkeypatch):
    for name in ("http_proxy", "https_proxy", "ALL_PROXY", "HF_TOKEN", "JUPYTER_TOKEN"):
        monkeypatch.setenv(name, "http://someone:hunter2@proxy.example")
    done = raw(monkeypatch)
    assert "hunter2" not in done.stdout + done.stderr
    assert "http_proxy\nhttps_proxy\nALL_PROXY\n" in done.stdout


def test_only_what_is_asked_is_run(machine, monkeypatch):
    log = machine.temporary / "called"
    for name in ("docker", "nvidia-smi", "curl"):
        machine.program(name, f'echo "{name} $*" >>"{log}"')
    raw(monkeypatch, "machine", KIT_ENDPOINTS="https://one.example/")
    assert not log.exists()
    raw(monkeypatch, "gpu")
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"nvidia-smi"}


def test_input_cut_off_runs_nothing(machine, monkeypatch):
    text = "KIT_MARK=@@x\nKIT_GROUPS=machine\n" + SCRIPT.read_text()
    done = process.run(["sh", "-s"], input=text[: text.rindex("main")], timeout_s=60, check=False)
    assert done.stdout == ""


def test_killed_it_leaves_nothing_behind(machine):
    machine.program("nvidia-smi", f"exec {shutil.which('sleep', path='/usr/bin:/bin')} 30")
    child = subprocess.Popen(["sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    child.stdin.write("KIT_MARK=@@x\nKIT_GROUPS=gpu\n" + SCRIPT.read_text())
    child.stdin.close()
    deadline = time.monotonic() + 20
    while not list(machine.temporary.glob("kit-host*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(machine.temporary.glob("kit-host*"))
    child.send_signal(signal.SIGTERM)
    child.wait(timeout=20)
    assert not list(machine.temporary.glob("kit-host*"))


class Server(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response({"/v2/": 401, "/simple/": 200}.get(self.path, 404))
        self.end_headers()

    def date_time_string(self, timestamp=None):
        # Its clock is two minutes behind.
        return super().date_time_string(time.time() - 120)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def silent():
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("program", ["curl", "wget", "python3"])
def test_endpoints(machine, server, silent, program):
    path = sys.executable if program == "python3" else shutil.which(program, path="/usr/bin:/bin")
    if not path:
        pytest.skip(f"{program} is not installed")
    (machine.bin / program).symlink_to(path)
    started = time.monotonic()
    host = read_host(
        endpoints=[
            Endpoint(kind="registry", url=server),
            Endpoint(kind="mirror", url=f"{server}/nowhere"),
            Endpoint(kind="index", url=f"{server.replace('//', '//name:word@')}/simple"),
            Endpoint(kind="registry", url="http://127.0.0.1:9"),
            Endpoint(kind="index", url=silent),
        ]
    )
    taken = time.monotonic() - started
    assert [(e.kind, e.is_reachable, e.problem) for e in host.endpoints] == [
        ("registry", True, ""),
        ("mirror", False, "404"),
        ("index", True, ""),
        ("registry", False, "refused"),
        ("index", False, "timeout"),
    ]
    assert host.endpoints[2].url == f"{server}/simple"
    assert host.clock_skew_s == pytest.approx(120, abs=5)
    assert (host.endpoints[0].seconds is not None) == (program == "curl")
    # All at once, two seconds each; the promise is three, on a machine that has nothing else to do.
    assert taken < 6


def test_nothing_to_ask_endpoints_with(machine):
    (endpoint,) = read_host(endpoints=[Endpoint(kind="registry", url="https://registry.example")]).endpoints
    assert endpoint == Endpoint(kind="registry", url="https://registry.example")


def test_passwords_are_not_on_a_command_line(machine):
    log = machine.temporary / "called"
    machine.program("curl", f'echo "$*" >>"{log}"')
    read_host(endpoints=[Endpoint(kind="index", url="https://name:hunter2@index.example/simple")])
    assert log.read_text().split()[-1] == "https://index.example/simple/"


@pytest.mark.parametrize("url", ["", "-o/etc/passwd", "file:///etc/passwd", "https://", "https://a b"])
def test_addresses_that_are_none(machine, url):
    with pytest.raises(BadInputError, match="no address to ask"):
        read_host(endpoints=[Endpoint(kind="registry", url=url)])


def test_without_a_driver_no_program_is_started(monkeypatch):
    monkeypatch.setattr("kit.host.host_has_gpu", lambda: False)
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("a program was started"))
    host = read_gpus(with_use=True)
    assert (host.driver, host.gpus, host.platform.split("/")[0]) == ("", (), "linux")


def test_with_nvml_no_program_is_started_either(monkeypatch):
    answer = Driver(version="580.95.05", cuda="13.0", gpus=(HostGpu(name="NVIDIA H200"),))
    monkeypatch.setattr("kit.host.host_has_gpu", lambda: True)
    monkeypatch.setattr(kit.host, "_ask_nvml", lambda with_use: answer)
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("a program was started"))
    host = read_gpus()
    assert (host.driver, host.driver_cuda, host.gpus) == ("580.95.05", "13.0", answer.gpus)


def test_owners_and_containers_beside_nvml(machine, monkeypatch):
    from kit.facts.host import GpuProcess

    gpu = HostGpu(name="NVIDIA H200", processes=(GpuProcess(pid=4711, name="", memory_mib=5),))
    monkeypatch.setattr("kit.host.host_has_gpu", lambda: True)
    monkeypatch.setattr(kit.host, "_ask_nvml", lambda with_use: Driver(version="580.95.05", gpus=(gpu,)))
    machine.program("nvidia-smi", "exit 1")
    machine.file("proc/4711/comm", "python3\n")
    machine.file("proc/4711/cgroup", f"0::/system.slice/docker-{ID}.scope\n")
    machine.docker([[ID, "kit-one", "Up 1 second", "torch-cu126", "", "1:1", "--device=nvidia.com/gpu=0", "GPU-1", ""]])
    host = read_gpus(with_use=True)
    (found,) = host.gpus[0].processes
    assert (found.name, found.container, found.memory_mib) == ("python3", "kit-one", 5)
    assert [(c.name, c.lease) for c in host.containers] == [("kit-one", ("GPU-1",))]
    assert (host.driver, host.unread) == ("580.95.05", ())


def test_nvidia_smi_where_nvml_cannot_be_used(machine, monkeypatch):
    monkeypatch.setattr("kit.host.host_has_gpu", lambda: True)
    monkeypatch.setattr(kit.host, "_ask_nvml", lambda with_use: None)
    machine.gpu()
    host = read_gpus()
    assert (host.driver, host.gpus[0].compute_capability, host.gpus[0].index) == ("535.54.03", "8.0", 0)


def test_a_gpu_without_a_driver_is_seen_without_starting_anything(monkeypatch, tmp_path):
    monkeypatch.setattr("kit.process.run", None)
    devices = {
        "0000:00:02.0": ("0x8086", "0x030000", "0x4680", "i915"),
        "0000:01:00.0": ("0x10de", "0x030000", "0x2803", "nouveau"),
        "0000:01:00.1": ("0x10de", "0x040300", "0x22bd", "snd_hda_intel"),
        "0000:02:00.0": ("0x10de", "0x030200", "0x20b2", "vfio-pci"),
        "0000:03:00.0": ("0x10de", "0x030200", "0x2330", ""),
    }
    for address, (vendor, kind, number, driver) in devices.items():
        folder = tmp_path / address
        folder.mkdir()
        for name, value in (("vendor", vendor), ("class", kind), ("device", number)):
            (folder / name).write_text(f"{value}\n")
        if driver:
            (tmp_path / "drivers" / driver).mkdir(parents=True, exist_ok=True)
            (folder / "driver").symlink_to(tmp_path / "drivers" / driver)
    monkeypatch.setattr("kit.host.PCI_DEVICES", tmp_path)
    host = read_gpus()
    assert [(gpu.address, gpu.device_id, gpu.driver) for gpu in host.pci_gpus] == [
        ("0000:01:00.0", "2803", "nouveau"),
        ("0000:03:00.0", "2330", ""),
    ]
    assert (host.driver, host.gpus, host.has_gpu) == ("", (), True)
    # A driver that is loaded and shows none of them.
    monkeypatch.setattr("kit.host.host_has_gpu", lambda: True)
    monkeypatch.setattr(kit.host, "_ask_nvml", lambda with_use: Driver(version="595.71.05"))
    assert len(read_gpus().pci_gpus) == 2
