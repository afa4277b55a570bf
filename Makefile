# The recipes of the project; .ci/run and the README call them by these names.

CARGO ?= cargo
KUBECTL ?= kubectl
DATA_DIR ?= .packageserver
LISTEN ?= 127.0.0.1:7443

.PHONY: run build test e2e fuzz soak contract deny tools e2e-tools test-tools build-tools lint bench bench-check deploy undeploy clean

## Everything in one process on the sample catalog.
run: build
	@printf '%s\n' '' 'In another terminal:' '' \
	  '  export KUBECONFIG=$(abspath $(DATA_DIR))/kubeconfig' \
	  '  kubectl get catalogsource,catalogcache,packages -n test' \
	  '  kubectl get packages -n test -o wide' \
	  '  kubectl get package greeter -n test -o yaml' \
	  '  kubectl explain package.spec.channels.entries' \
	  '  kubectl get packages -n test -w' ''
	target/debug/packageserver up --filename config/samples/local --allow-local-sources config/samples/local \
	  --data-dir $(DATA_DIR) --listen $(LISTEN)

build: build-tools
	$(CARGO) build --locked

## All tests, with a real registry and the real kubectl.
test: build-tools test-tools tools
	$(CARGO) test --locked

## On a real cluster without nodes: kube-apiserver, kube-controller-manager and etcd, built from their modules.
e2e: build-tools test-tools e2e-tools
	$(CARGO) test --locked --test e2e

## How much of the API contract is shown by tests that name its rules.
contract:
	@scripts/contract

## The tests whose inputs or faults are made by chance, with many more of them: FUZZ_CASES of what is quick, and of the rest as
## many as the tests say.
FUZZ_CASES ?= 20000

fuzz: build-tools test-tools tools
	PACKAGESERVER_LONG_TESTS=1 PROPTEST_CASES=$(FUZZ_CASES) $(CARGO) test --locked --lib
	PACKAGESERVER_LONG_TESTS=1 PROPTEST_CASES=$(FUZZ_CASES) $(CARGO) test --locked --test it -- \
	  properties whatever_ c161_labels random_histories killed named_steps

## Everything at once on both stores, for SOAK_SECONDS on each, with SOAK_WATCHERS watchers.
SOAK_SECONDS ?= 600
SOAK_WATCHERS ?= 2000

soak: build-tools test-tools tools
	PACKAGESERVER_SOAK_SECONDS=$(SOAK_SECONDS) PACKAGESERVER_SOAK_WATCHERS=$(SOAK_WATCHERS) \
	  $(CARGO) test --locked --test it -- soak:: --nocapture --test-threads=1

## Licences, sources and banned crates of the dependencies: needs cargo-deny.
deny:
	cargo deny check licenses bans sources

## What a change has to pass before it is read by people.
lint: build-tools
	$(CARGO) fmt --check
	scripts/check-imports
	scripts/contract
	$(CARGO) clippy --locked --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --locked --no-deps --document-private-items

## Installs in the cluster that kubectl speaks to, and waits until the API is available.
deploy:
	$(KUBECTL) apply -f config/
	$(KUBECTL) wait apiservice v1beta1.core.rukpak.io --for=condition=Available --timeout=300s

## Removes what `deploy` installed. The APIService goes first: without a server behind it, no namespace could be deleted.
undeploy:
	$(KUBECTL) delete apiservice v1beta1.core.rukpak.io --ignore-not-found
	$(KUBECTL) delete --ignore-not-found -f config/

## What everything costs, against the floor; docs/PERFORMANCE.md explains the figures.
bench: build-tools test-tools e2e-tools bin/opm bin/peer
	$(CARGO) bench --locked

## Fails when ratios that do not follow the machine are worse than those in benches/expected.json. With the profile of the
## tests, so that what they have built is measured and nothing is built twice.
bench-check: build-tools test-tools tools
	$(CARGO) bench --locked --profile dev --bench ingest --bench serving -- --short --check $(BENCH_FLAGS)

## Installs what is missing, from Debian's packages.
build-tools:
	@scripts/install-missing protoc:protobuf-compiler /usr/include/google/protobuf/descriptor.proto:libprotobuf-dev cc:gcc

test-tools:
	@scripts/install-missing docker-registry:docker-registry etcd:etcd-server faketime:faketime strace:strace
	@command -v kubectl >/dev/null || { echo 'kubectl is missing: https://kubernetes.io/docs/tasks/tools' >&2; exit 1; }

## The servers and clients that tests run with and Debian does not have: built in bin/, from modules that pin them.
tools: bin/etcd bin/judge
e2e-tools: tools bin/kube-apiserver bin/kube-controller-manager

bin/etcd: tests/tools/etcd/go.mod tests/tools/etcd/go.sum
	cd tests/tools/etcd && go build -o ../../../bin/etcd go.etcd.io/etcd/server/v3

bin/judge: tests/tools/judge/main.go tests/tools/judge/go.mod tests/tools/judge/go.sum
	cd tests/tools/judge && go build -trimpath -ldflags '-s -w' -o ../../../bin/judge .

bin/kube-apiserver bin/kube-controller-manager &: tests/tools/kube/go.mod tests/tools/kube/go.sum
	cd tests/tools/kube && go build -trimpath -ldflags '-s -w' -o ../../../bin/ \
	  k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager

bin/peer: tests/tools/peer/main.go tests/tools/peer/go.mod tests/tools/peer/go.sum
	cd tests/tools/peer && go build -trimpath -ldflags '-s -w' -o ../../../bin/peer .

bin/opm: tests/tools/opm/go.mod tests/tools/opm/go.sum
	cd tests/tools/opm && go build -tags containers_image_openpgp,exclude_graphdriver_btrfs -o ../../../bin/opm github.com/operator-framework/operator-registry/cmd/opm

clean:
	$(CARGO) clean
	rm -rf .packageserver bin
