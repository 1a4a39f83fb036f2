# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists the targets. `make demo` and `make test` need Go, make, git and
# root, nothing else: the packet path is compiled already and in the tree.

GO              ?= go
CLANG_VERSION   ?= 19
CLANG           ?= clang-$(CLANG_VERSION)
CLANG_FORMAT    ?= clang-format-$(CLANG_VERSION)
LLVM_STRIP      ?= llvm-strip-$(CLANG_VERSION)
GOLANGCI_LINT   ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# Differential fuzzing: this many packets; each Go fuzz target: this long.
FUZZ_PACKETS    ?= 5000000
FUZZ_TIME       ?= 30s

# The kernels of `make test-kernels`; ALL=1 adds those tried before a release.
KERNELS         ?= 6.1 6.12 newest $(if $(ALL),5.10 6.18)
KERNEL_CACHE    ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sentinel-x/kernels

BINARY          := bin/sentinel-x
VERSION         := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS         := -s -w -X github.com/sentinel-x/sentinel-x/internal/cli.Version=$(VERSION)
C_SOURCES       := $(wildcard bpf/*.[ch] bpf/lib/*.h bpf/test/*.[ch] bpf/include/*.h)

GENERATED       := '*_bpfel.go' '*_bpfel.o' '*_string*.go' docs/openapi.json docs/cli.md 'docs/configuration*' docs/man 'packaging/*.yaml'

# Loading programs and making network namespaces takes root. Only what needs it
# runs under sudo, so that no file in the tree or the caches becomes root's.
IS_ROOT         := $(filter 0,$(shell id -u))
SUDO            := $(if $(IS_ROOT),,sudo)
TEST_AS_ROOT    := $(if $(IS_ROOT),,-exec "sudo --preserve-env env PATH=$(PATH)")
GOTEST          := $(GO) test $(TEST_AS_ROOT) $(TESTFLAGS)

export CGO_ENABLED ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup setup-generate setup-kernels build install generate models models-check fmt lint lint-go lint-c \
	test test-go test-race test-kernels fuzz bench bench-docs demo docs check check-generated \
	vendor-headers clean require-go require-root require-clang

##@ Try it
demo: setup build ## Show the whole product on this machine, in namespaces of its own (about a minute)
	$(SUDO) $(BINARY) demo $(DEMOFLAGS)

bench: setup build ## Measure the cost of a verdict, in ns over a bare XDP_DROP
	$(SUDO) $(BINARY) bench verdict

bench-docs: setup build ## Run every benchmark and write tables and plots into docs/ (idle machine, three minutes)
	$(SUDO) $(BINARY) bench all --docs docs

##@ Build
build: require-go ## Build bin/sentinel-x, static
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BINARY) .

install: build ## Install binary, systemd unit, example configuration and man pages under DESTDIR
	install -D -m 755 $(BINARY) $(DESTDIR)/usr/bin/sentinel-x
	install -D -m 644 packaging/sentinel-x.service $(DESTDIR)/usr/lib/systemd/system/sentinel-x.service
	install -D -m 644 packaging/sentinel-x.example.yaml $(DESTDIR)/usr/share/doc/sentinel-x/sentinel-x.example.yaml
	$(BINARY) man $(DESTDIR)/usr/share/man/man1

generate: require-clang ## Compile bpf/ and write the generated Go files (clang 19)
	$(GO) generate ./...

docs: require-go ## Write the pages that follow from the code (configuration, API, man pages)
	$(GO) generate $$($(GO) list ./... | grep -v '/internal/dataplane$$')

models: require-go ## Make the default model of the detector again from its seeds (some minutes)
	$(GO) run ./internal/train/mkdefault

models-check: require-go ## Make the default model again beside the one in git, and fail if they differ (some minutes)
	@mkdir -p build
	$(GO) run ./internal/train/mkdefault -out build/default.ubj.gz
	cmp build/default.ubj.gz internal/detect/models/default.ubj.gz

vendor-headers: ## Refresh bpf/include/bpf from Debian's libbpf-dev
	scripts/vendor-libbpf.sh

clean: ## Remove what the build made
	rm -rf bin build

##@ Test
test: setup test-go ## Run every test, namespaces and BPF included

test-go: require-go require-root ## Run every Go test without the set-up
	$(GOTEST) ./...

test-race: require-go require-root ## Run every Go test under the race detector (needs gcc)
	CGO_ENABLED=1 $(GOTEST) -race ./...

test-kernels: require-go ## Run the data plane's tests under other kernels in QEMU (ALL=1: two more)
	scripts/test-kernels.sh -d '$(KERNEL_CACHE)' $(KERNELS)

fuzz: require-go require-root ## Compare FUZZ_PACKETS packets with the reference decoder; run each fuzz target for FUZZ_TIME
	SENTINEL_X_FUZZ_PACKETS=$(FUZZ_PACKETS) $(GOTEST) -count=1 -timeout=2h -v -run='^TestDifferential' ./internal/dataplane
	FUZZ_TIME=$(FUZZ_TIME) GO='$(GO)' scripts/fuzz.sh

check: check-generated lint test ## Do what CI does: generated files, linters, tests

##@ Style
fmt: ## Format Go and C
	$(GOLANGCI_LINT) fmt
	$(CLANG_FORMAT) -i $(C_SOURCES)

lint: lint-c lint-go ## Check format and style of Go and C

lint-go: require-go ## Check the Go files
	$(GOLANGCI_LINT) run

lint-c: ## Check the format of the C files
	@command -v $(CLANG_FORMAT) >/dev/null || { echo "$(CLANG_FORMAT) is missing: make setup-generate"; exit 1; }
	$(CLANG_FORMAT) --dry-run -Werror $(C_SOURCES)

check-generated: generate ## Fail if the generated files in git are not what the sources give
	@changed=$$(git status --porcelain -- $(GENERATED)); test -z "$$changed" || { \
		echo "$$changed"; echo "Not what the sources give: commit what 'make generate' wrote."; exit 1; }

##@ Set-up
setup: require-go require-root ## Check this machine and fetch the Go modules; installs nothing else
	@echo "set-up: $$($(GO) env GOVERSION), Linux $$(uname -r); no packages to install; Go modules go to $$($(GO) env GOMODCACHE)"
	@test -r /sys/kernel/btf/vmlinux || { echo "This kernel has no BTF (/sys/kernel/btf/vmlinux): Linux 5.10 or newer with CONFIG_DEBUG_INFO_BTF is needed."; exit 1; }
	$(GO) mod download

setup-generate: ## Install clang 19 for `make generate`, `fmt` and `lint` (Debian and Ubuntu packages)
	scripts/apt-install.sh $(CLANG):clang-$(CLANG_VERSION) $(LLVM_STRIP):llvm-$(CLANG_VERSION) $(CLANG_FORMAT):clang-format-$(CLANG_VERSION)

setup-kernels: ## Install what `make test-kernels` needs: QEMU, busybox, kmod (Debian and Ubuntu packages)
	scripts/apt-install.sh qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio xz:xz-utils zstd depmod:kmod /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring

require-go: ## Check that Go is there
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or newer (https://go.dev/dl/) and put it in PATH."; exit 1; }

require-root: ## Check that root or sudo is there
	@test -n '$(IS_ROOT)' || command -v sudo >/dev/null || { echo "This needs root, to load BPF programs and make network namespaces: run it as root, or install sudo."; exit 1; }

require-clang: ## Check that the pinned clang is there
	@command -v $(CLANG) >/dev/null && command -v $(LLVM_STRIP) >/dev/null || { \
		echo "$(CLANG) or $(LLVM_STRIP) is missing: make setup-generate installs them. Only changes to bpf/ need them."; exit 1; }

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
