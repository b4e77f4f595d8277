# Podvine. `make help` lists the commands.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT      := $(shell git rev-parse HEAD 2>/dev/null)
KUBERNETES  := v1.37.2
RUNC        := v1.5.2
OUT         := .build
PACKED      := agent/bundle/packed

# The product is one static file; cgo is for the race detector and runc only.
export CGO_ENABLED := 0

VERSION_PKG := k8s.io/component-base/version
LDFLAGS := -s -w \
  -X $(VERSION_PKG).gitVersion=$(KUBERNETES) -X $(VERSION_PKG).gitMajor=1 -X $(VERSION_PKG).gitMinor=37 \
  -X $(VERSION_PKG).gitTreeState=clean -X $(VERSION_PKG).gitCommit=$(COMMIT) \
  -X github.com/podvine/podvine/agent/version.Version=$(VERSION)

.PHONY: help setup build programs test drills lint bench run clean generate oracle

help: ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What is needed beyond Go: a C compiler and libseccomp for runc, the tools with which the lab and the tests make
# and look at hosts. clang and libbpf-dev are needed by `make generate` only.
PACKAGES := gcc libc6-dev libseccomp-dev pkg-config iproute2 nftables e2fsprogs util-linux procps busybox-static git

setup: ## install what building and testing need (Debian packages)
	@missing=""; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

# runc comes from its own published module, with its own dependency versions.
$(OUT)/runc-$(RUNC):
	@mkdir -p $(OUT); echo "building runc $(RUNC)"
	@CGO_ENABLED=1 GOBIN=$(abspath $(OUT)) $(GO) install -tags 'seccomp netgo osusergo' \
	  -ldflags '-s -w -linkmode external -extldflags -static' github.com/opencontainers/runc@$(RUNC)
	@mv $(OUT)/runc $@

programs: setup $(OUT)/runc-$(RUNC)
	@mkdir -p $(OUT) $(PACKED)
	@cmp -s $(OUT)/runc-$(RUNC) $(OUT)/runc || cp $(OUT)/runc-$(RUNC) $(OUT)/runc
	@$(GO) build -ldflags '-s -w' -o $(OUT)/podvine-shim ./agent/pods/shim/podvine-shim
	@$(GO) build -ldflags '-s -w' -o $(OUT)/podvine-netd ./dataplane/netd/podvine-netd
	@$(GO) build -ldflags '-s -w' -o $(OUT)/podvine-sample ./cli/lab/sample
	@$(GO) run ./agent/bundle/pack -out $(PACKED) $(addprefix $(OUT)/,podvine-shim podvine-netd podvine-sample runc)

build: programs ## build bin/podvine, the one file to install
	@echo "building bin/podvine $(VERSION)"
	@$(GO) build -tags bundle -ldflags '$(LDFLAGS)' -o bin/podvine ./cli/podvine

# Packages that use the whole machine (disks, pods, networks, a lab): one after the other. The rest go two at a time.
ALONE := ./consensus/... ./agent/pods/... ./dataplane/... ./agent/api ./agent/control ./cli/... ./docs/...
# Packages in which goroutines meet and which neither link the API server nor use the whole machine; a second build of
# the first for the race detector would take longer than all tests.
RACE := ./gossip/... ./consensus ./consensus/netsim/... ./consensus/quorum/... ./consensus/sealing/... ./consensus/store/... \
	./agent/control/loop/... ./agent/join ./agent/peer ./agent/pki ./agent/pods/lifecycle/... ./agent/pods/objects \
	./agent/pods/shim/stream ./dataplane/dns ./dataplane/services/...

test: build ## run all tests (as root; pods, networks and eBPF are real)
	$(GO) vet ./...
	$(TEST_ENV) $(GO) test -p 2 -timeout 20m $(filter-out $(shell $(GO) list $(ALONE)),$(shell $(GO) list ./...))
	$(TEST_ENV) $(GO) test -p 1 -timeout 20m $(ALONE)
	CGO_ENABLED=1 $(GO) test -race -p 2 -timeout 20m $(RACE)
	cd $(SOFTWARE) && $(GO) build -ldflags '-s -w' -o $(abspath $(OUT))/software/ tool && $(TEST_ENV) $(GO) test -ldflags '-s -w' -timeout 20m .

# Other people's programs, at the versions of a module of their own; its tests run them on a lab.
SOFTWARE := cli/e2e/software

TEST_ENV := PODVINE_BIN=$(abspath bin/podvine) PODVINE_PROGRAMS=$(abspath $(OUT))

# Every drill this often, with other victims each time; about a quarter of an hour for each seed. One rolls the hosts to a
# binary of another version.
SEEDS ?= 1

drills: build ## break a lab of five hosts in every way, SEEDS times, and print what was lost
	@$(GO) build -tags bundle -ldflags '$(LDFLAGS)-next' -o $(OUT)/podvine-next ./cli/podvine
	$(TEST_ENV) PODVINE_NEXT_BIN=$(abspath $(OUT)/podvine-next) PODVINE_DRILL_SEEDS=$(SEEDS) \
	  $(GO) test -v -count 1 -timeout $$((10 + 25 * $(SEEDS)))m -run 'Drills|Idle' ./cli/e2e/mesh

lint: ## run golangci-lint with .golangci.yml, in the nested modules too
	@for module in . agent/api/bench $(SOFTWARE); do echo "lint $$module" && \
	  (cd $$module && $(GO) tool -modfile=$(abspath .tools/go.mod) golangci-lint run ./...) || exit 1; done

# The peer of the scheduler's benchmark, a program that nothing imports.
$(OUT)/kube-scheduler: agent/control/scheduler/peer/go.mod
	@mkdir -p $(OUT); echo "building kube-scheduler $(KUBERNETES)"
	@cd agent/control/scheduler/peer && $(GO) build -ldflags '$(LDFLAGS)' -o $(abspath $@) k8s.io/kubernetes/cmd/kube-scheduler

bench: build $(OUT)/kube-scheduler ## run the benchmarks; docs/performance.md tells how to read them
	$(TEST_ENV) PODVINE_KUBE_SCHEDULER=$(abspath $(OUT)/kube-scheduler) $(GO) test -p 1 -run '^$$' -bench . -benchmem -timeout 60m ./...
	cd agent/api/bench && $(GO) run . -rounds 5 && $(GO) run . -rounds 5 -fsync-delay 5ms && $(GO) run . -rounds 5 -voters 3 && $(GO) run . -rounds 1 -memory

run: build ## start a lab, run the sample application in it and print its address
	@bin/podvine lab demo

generate: ## regenerate eBPF objects and OpenAPI definitions (needs clang and libbpf-dev)
	$(GO) generate ./...

# The checker and its recordings are not part of the project; ORACLE names their folder. What differs on purpose is left out:
# warnings of what does nothing yet, and the recorded administrator's own name and certificate.
ORACLE ?= ../shared/oracle

oracle: ## compare the API with recorded answers of the real one (ORACLE=folder of the checker)
	@$(GO) build -o $(OUT)/apiserve ./agent/api/apitest/serve
	@dir=$$(mktemp -d); $(OUT)/apiserve -toleration-seconds 300 -kubeconfig $$dir/kubeconfig >/dev/null 2>$$dir/log & server=$$!; \
	trap "kill $$server; wait $$server; rm -rf $$dir" EXIT; until [ -s $$dir/kubeconfig ]; do \
	  kill -0 $$server 2>/dev/null || { cat $$dir/log; exit 1; }; sleep 0.1; done; \
	cd $(ORACLE) && $(GO) run . check --kubeconfig $$dir/kubeconfig --ignore 'credential-id|username|not supported by Podvine yet'

clean: ## remove what was built, and any lab
	@[ ! -x bin/podvine ] || bin/podvine lab down --all
	rm -rf bin $(OUT) $(PACKED)
