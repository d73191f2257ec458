# One entry for people and for CI. `make` lists what there is. Needed on the machine: python3 (3.10 or newer), make,
# git, a package mirror and a PyPI mirror; what else a target needs, it installs or starts.

IMAGE ?= torch-cu126
SERVICE ?= jupyter
PYTHON ?= python3
ONLY ?=
GROUP ?=
IMAGES ?=
PYTEST_ARGS ?=
KIT_FUZZ_SECONDS ?=
BINDIR ?=

# What is given is words, never make's own text: `make ONLY='$(shell …)'` runs nothing. Recipes have it in the shell's
# variables, where it is no text of a command either.
GIVEN := IMAGE SERVICE PYTHON ONLY GROUP IMAGES PYTEST_ARGS KIT_FUZZ_SECONDS UPGRADE BINDIR FORCE
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export $(GIVEN)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

override BIN := .venv/bin
override KIT := $(BIN)/kit
override SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E)

# Reads the words of PYTEST_ARGS, quoted as for a shell, into the array `args`.
define pytest_args
mapfile -d '' -t args < <(xargs --no-run-if-empty printf '%s\0' <<<"$$PYTEST_ARGS")
wait "$$!"
endef

# The package index and the certificates that pip and the system are set to use, for uv.
define uv_settings
index="$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true)}"
[ -z "$$index" ] || export UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$$index}"
export UV_SYSTEM_CERTS="$${UV_SYSTEM_CERTS:-true}"
endef

# apt_install PACKAGE: from the distribution; the package lists are fetched first when they are missing or old.
define apt_install
apt_install() {
    if ! command -v apt-get >/dev/null; then
        echo "error: $$1 is needed, and this system has no apt-get: install it with the system's package manager" >&2
        return 1
    fi
    echo "installing $$1 from the distribution" >&2
    local apt=($(SUDO) env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get -qq -o DPkg::Lock::Timeout=120)
    "$${apt[@]}" install --yes --no-install-recommends "$$1" >/dev/null 2>&1 && return
    "$${apt[@]}" update >&2 && "$${apt[@]}" install --yes --no-install-recommends "$$1" >/dev/null
}
endef

# Starts the private engine if there is no Docker that may be used (kit's exit codes 10 and 23); `started` then says so.
# One that root started is had from it by the same command. Podman builds too, but what is made here is what BuildKit
# makes of it.
define need_engine
started=""
code=0
for choice in system private; do
    code=0
    KIT_ENGINE="$$choice" $(KIT) --quiet ps >/dev/null 2>&1 || code=$$?
    if [ "$$code" != 10 ] && [ "$$code" != 23 ]; then break; fi
done
if [ "$$code" = 10 ]; then
    echo "no container engine answers: starting kit's private one" >&2
    $(SUDO) $(KIT) engine up
    started=yes
elif [ "$$code" = 23 ]; then
    $(SUDO) $(KIT) engine up
fi
endef

# Stops the engine when the recipe ends, however it ends, but only one that the recipe started.
define engine_ends_with_recipe
stop_engine() { if [ -n "$$started" ]; then $(SUDO) $(KIT) --quiet engine down >/dev/null; fi; }
trap stop_engine EXIT
endef

##@ Use
.PHONY: help run install build/% run/%

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " }
	/^##@/ { printf "\n%s\n", substr($$0, 5) }
	/^[a-zA-Z0-9_%\/-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: .venv/ready ## Build IMAGE (torch-cu126), start SERVICE (jupyter) in it and print the URL
	@$(need_engine)
	$(KIT) run "$$IMAGE" "$$SERVICE"
	echo "$(KIT) ps  # what runs; url, logs and stop take its name in place of ps" >&2

# A link to the program in .venv; `uv tool install` and pipx make a copy.
install: .venv/ready ## Put `kit` on PATH: a link in ~/.local/bin (root: /usr/local/bin), or in BINDIR
	@folder="$$BINDIR"
	if [ -z "$$folder" ] && [ "$$(id -u)" = 0 ]; then folder=/usr/local/bin; fi
	folder="$${folder:-$$HOME/.local/bin}"
	mkdir -p "$$folder"
	if [ -e "$$folder/kit" ] && ! [ "$$folder/kit" -ef $(KIT) ] && ! [ -L "$$folder/kit" ]; then
	    echo "error: $$folder/kit is another program; move it away" >&2
	    exit 1
	fi
	ln -sfn "$$PWD/$(KIT)" "$$folder/kit"
	echo "$$folder/kit"
	if [ "$$(command -v kit)" != "$$folder/kit" ]; then
	    echo "note: $$folder is not on PATH yet: export PATH=\"$$folder:\$$PATH\", or log in again" >&2
	fi

run/% build/%: export STEM = $*

run/%: ## The same for one image, `make run/tf-cpu`
	@$(MAKE) run IMAGE="$$STEM"

build/%: .venv/ready ## Build one image, `make build/tf-cpu`
	@$(need_engine)
	$(KIT) build "$$STEM"

##@ Test
.PHONY: setup browser sshd rsync iproute podman sudo test test-unit test-engine fuzz check-packages check lint lint-python lint-types lint-shell lint-dockerfiles lint-generated

setup: .venv/ready ## Make the virtual environment
	@:

test: .venv/ready browser sshd rsync iproute podman sudo ## Run all tests, real builds and runs included, or those that PYTEST_ARGS chooses
	@if [ -z "$$PYTEST_ARGS" ]; then
	    $(MAKE) test-unit
	    $(MAKE) test-engine
	    exit
	fi
	$(need_engine)
	$(engine_ends_with_recipe)
	# An engine is there now: a test that does not find it fails instead of being skipped.
	$(pytest_args)
	KIT_REQUIRE_ENGINE=1 $(BIN)/python -m pytest "$${args[@]}"

# One process more than there are cores, for many tests wait. Those of a file stay together: they share ports and servers.
test-unit: .venv/ready ## Run the tests that need no engine
	@$(pytest_args)
	$(BIN)/python -m pytest -m "not engine and not gpu" -n "$$(($$(getconf _NPROCESSORS_ONLN) + 1))" --dist loadfile \
	    "$${args[@]}"

# Two at a time, as tests/conftest.py says; then those that must be alone, of which PYTEST_ARGS may choose none.
test-engine: .venv/ready browser sshd rsync iproute podman sudo ## Run the tests that need an engine, or GROUP of them: a folder of tests/engine, or security
	@$(need_engine)
	$(engine_ends_with_recipe)
	$(pytest_args)
	export KIT_REQUIRE_ENGINE=1
	if [ "$$GROUP" = security ]; then
	    $(BIN)/python -m pytest -m "engine or gpu" tests/security "$${args[@]}"
	elif [ -n "$$GROUP" ]; then
	    $(BIN)/python -m pytest -m "engine or gpu" "tests/engine/$$GROUP" "$${args[@]}"
	else
	    $(BIN)/python -m pytest -m "(engine or gpu) and not alone" -n 2 --dist loadscope "$${args[@]}"
	    $(BIN)/python -m pytest -m "alone" "$${args[@]}" || [ $$? = 5 ]
	fi

# Part of test-unit for a moment each. A file has a reader and three to nine tests: about a minute for each.
fuzz: .venv/ready ## Feed damaged files and replies to what reads them, KIT_FUZZ_SECONDS (15) for each test
	@$(pytest_args)
	export KIT_FUZZ_SECONDS="$${KIT_FUZZ_SECONDS:-15}"
	$(BIN)/python -m pytest -n "$$(getconf _NPROCESSORS_ONLN)" tests/security/test_fuzz_*.py "$${args[@]}"

# About a minute for each image, of questions to the index.
check-packages: .venv/ready ## Ask PyPI whether much used packages can be installed beside what each image holds (IMAGES: of these)
	@read -ra names <<<"$$IMAGES"
	$(KIT) lock --check --popular "$${names[@]}"

check: lint test-unit ## What must pass before a commit: all linters, and the tests that need no engine

lint: lint-python lint-types lint-shell lint-dockerfiles lint-generated ## All linters, and whether generated files are up to date

lint-python: .venv/ready
	@$(BIN)/ruff check
	$(BIN)/ruff format --check

lint-types: .venv/ready
	@$(BIN)/mypy

lint-shell: .venv/ready
	@$(BIN)/shellcheck .ci/run
	# begin.sh and end.sh are halves of one script: neither finds the other (SC1091), nor what it sets (SC2154).
	$(BIN)/shellcheck --shell=sh --exclude=SC1091,SC2154 templates/*.sh
	$(BIN)/shellcheck --shell=sh kit/host/probe.sh kit/image/build/podman.sh kit/image/base/configure.sh kit/project/system.sh

lint-dockerfiles: .venv/ready
	@$(BIN)/hadolint images/*/Dockerfile

lint-generated: .venv/ready
	@$(KIT) render --check
	$(KIT) lock --check

# Chromium opens a page of JupyterLab in one test. Ubuntu has it as a snap alone, which does not run in a container.
browser:
	@for program in chromium chromium-browser google-chrome google-chrome-stable; do
	    if command -v "$$program" >/dev/null; then exit 0; fi
	done
	$(apt_install)
	if [ "$$(. /etc/os-release && echo "$$ID")" = debian ] && apt_install chromium; then exit 0; fi
	echo "note: no Chromium on this machine; the test that opens JupyterLab in it will be skipped" >&2

# OpenSSH's server, which tests start for themselves. Where systemd runs, the package would start one for the whole
# machine: that is for its owner to decide.
sshd:
	@if [ -x /usr/sbin/sshd ]; then exit 0; fi
	$(apt_install)
	if [ ! -d /run/systemd/system ] && apt_install openssh-server; then exit 0; fi
	echo "note: no OpenSSH server on this machine; the tests that read a host over SSH will be skipped" >&2

# What sends the working folder to another machine.
rsync:
	@if command -v rsync >/dev/null; then exit 0; fi
	$(apt_install)
	if apt_install rsync; then exit 0; fi
	echo "note: no rsync on this machine; the tests of kit sync will be skipped" >&2

# The tests of remote hosts make a network of their own with `ip`.
iproute:
	@if PATH="$$PATH:/usr/sbin:/sbin" command -v ip >/dev/null; then exit 0; fi
	$(apt_install)
	if apt_install iproute2; then exit 0; fi
	echo "note: no \`ip\` on this machine; the tests of remote hosts will be skipped" >&2

# Podman as an ordinary user has it, which tests make accounts for. Where it is there, it stays as it is.
podman:
	@$(apt_install)
	while read -r program package; do
	    if PATH="$$PATH:/usr/sbin:/sbin" command -v "$$program" >/dev/null; then continue; fi
	    if apt_install "$$package" </dev/null; then continue; fi
	    echo "note: no $$program on this machine; the tests of hosts with Podman need it" >&2
	done <<-END
	    newuidmap uidmap
	    slirp4netns slirp4netns
	    runc runc
	    podman podman
	END

# Tests make an account that is root only by it.
sudo:
	@if command -v sudo >/dev/null; then exit 0; fi
	$(apt_install)
	if apt_install sudo; then exit 0; fi
	echo "note: no sudo on this machine; the tests of an account that has it will be skipped" >&2

##@ Upkeep
.PHONY: lock requirements render update devices readme golden clean

lock: .venv/ready ## Solve the locks again of images whose rows changed
	@$(KIT) lock

requirements: .venv/ready ## Solve requirements-dev.txt again, what kit itself runs with here and in CI; UPGRADE=1: the newest
	@$(uv_settings)
	$(BIN)/uv --no-config pip compile pyproject.toml --group dev --universal --python-version 3.10 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make requirements" \
	    $(if $(UPGRADE),--upgrade) --quiet --output-file requirements-dev.txt

render: .venv/ready ## Write Dockerfiles from templates, catalog and locks
	@$(KIT) render

update: .venv/ready ## Ask registries for the digests of base images
	@$(KIT) update

devices: .venv/ready ## Write the table of PCI devices from PCI_IDS (pci.ids) and OPEN_README (of NVIDIA's open modules)
	@$(BIN)/python -c 'import sys; from kit.catalog.devices import write; write(*sys.argv[1:])' $(PCI_IDS) $(OPEN_README)

readme: .venv/ready ## Write the README's table of images
	@$(KIT) matrix --format markdown --into README.md

golden: .venv/ready ## Write what tests/cli/test_golden.py compares with, after a change that users are meant to notice
	@$(BIN)/python -m pytest --quiet tests/cli/test_golden.py --update-golden

clean: ## Remove the private engine with all its images, and the virtual environment; FORCE=1: even while containers run
	@if [ -x $(KIT) ]; then $(SUDO) $(KIT) --yes engine down --purge $(if $(FORCE),--force); fi
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

##@ CI and benchmarks
.PHONY: ci-jobs ci-matrix ci-image bench-build bench-cli bench-environment bench-explain bench-remote

ci-jobs: .venv/ready ## The job matrix, as GitHub's workflow takes it
	@read -ra names <<<"$$ONLY"
	matrix="$$($(KIT) matrix --format github "$${names[@]/#/--only=}")"
	echo "matrix=$$matrix"

ci-matrix: .venv/ready ## What CI does, for all locked images or ONLY="tf-cpu torch-cu126"
	@read -ra names <<<"$$ONLY"
	images="$$($(KIT) --quiet matrix "$${names[@]/#/--only=}")"
	for image in $$images; do
	    $(MAKE) ci-image IMAGE="$$image"
	done

# The one place that says what CI does with an image; .github/workflows/image.yml calls it.
ci-image: .venv/ready ## What CI does with IMAGE: build it, prove it
	@$(need_engine)
	$(engine_ends_with_recipe)
	$(KIT) build "$$IMAGE"
	$(KIT) verify "$$IMAGE"

bench-build: .venv/ready ## Time and size of a build, beside the same packages as people write them
	@$(need_engine)
	$(BIN)/python -m bench.build

bench-cli: .venv/ready ## Time of kit's commands, beside docker's
	@$(need_engine)
	$(BIN)/python -m bench.cli

bench-environment: .venv/ready ## Time of one more package in a project, beside a Dockerfile and uv
	@$(need_engine)
	$(BIN)/python -m bench.environment

bench-explain: .venv/ready ## What `kit explain` says of texts of public threads: right, wrong, unknown
	@$(BIN)/python -m bench.explain

bench-remote: .venv/ready sshd rsync ## Time of work on a host, beside bare ssh, docker and rsync
	@$(need_engine)
	$(BIN)/python -m bench.remote

# The virtual environment: what requirements-dev.txt holds, and kit.
.venv/ready: pyproject.toml requirements-dev.txt
	@if ! "$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
	    echo "error: kit needs Python 3.10 or newer, $$PYTHON is $$("$$PYTHON" --version 2>&1)" >&2
	    exit 1
	fi
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then
	    $(apt_install)
	    "$$PYTHON" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
	    echo "making the virtual environment .venv" >&2
	    "$$PYTHON" -m venv --clear .venv
	fi
	awk '/^uv==/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements-dev.txt > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: -r .venv/uv.txt
	$(uv_settings)
	# What is built from source is built by what is not locked: on other machines one linter is.
	wheels=()
	if [ "$$(uname -m)" = x86_64 ]; then wheels=(--only-binary :all:); fi
	install=($(BIN)/uv --no-config pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps)
	"$${install[@]}" --require-hashes "$${wheels[@]}" --requirements requirements-dev.txt
	"$${install[@]}" --no-build-isolation --editable .
	$(BIN)/python -m compileall -q kit
	touch $@
