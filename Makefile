# The project's commands. `make help` lists them.

STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The race detector needs a C compiler: where there is none, the tests run without it.
RACE := $(if $(shell command -v $${CC:-cc} || command -v gcc),-race)

# Modules of their own, so that what they need never reaches the product.
MODULES = . e2e e2e/bench/million e2e/bench/replay e2e/chart e2e/containerd2

.PHONY: build run demo test e2e crash bench check fuzz help

build: ## build bin/entrepot
	go build -o bin/entrepot ./cmd/entrepot

run: build ## serve a mirror of Docker Hub on :5000, content in ./data
	./bin/entrepot serve

demo: ## see it work: a registry, entrepot, four scenes; no internet but for Go modules
	cd e2e && go run ./demo

test: ## all tests that need neither root nor other programs
	@$(if $(RACE),,echo 'no C compiler: testing without the race detector')
	go test $(RACE) -count=1 ./...
	cd e2e/bench/replay && go test -count=1 ./...

e2e: ## real clients before a real registry; needs root, installs what it needs on Debian
	sh e2e/install.sh
	cd e2e && go test -count=1 -timeout 20m ./...
	cd e2e/chart && go test -count=1 ./...

ROUNDS = 1000
SEED = 1

crash: ## kill the real program in a mixed load ROUNDS times, from SEED on
	cd e2e && CRASH_ROUNDS=$(ROUNDS) CRASH_SEED=$(SEED) go test -v -count=1 -timeout 2h -run TestPromiseKilledAnywhere .

bench: ## benchmarks of the hot paths, what goes first, then entrepot beside its peers (needs Linux)
	go test -run '^$$' -bench . -benchmem ./...
	cd e2e/bench/replay && go run .
	cd e2e && go run ./bench

check: ## format, vet, staticcheck, which package may import which
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "not formatted: $$unformatted"; exit 1; }
	@for m in $(MODULES); do (cd $$m && echo "check $$m" && go vet ./... && $(STATICCHECK) ./... && go mod tidy -diff) || exit 1; done
	go test -count=1 -run TestArrows ./cmd/entrepot

FUZZTIME = 30s

fuzz: ## fuzz each parser of foreign bytes for FUZZTIME
	@for p in $$(go list ./...); do \
		for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "$$p $$f" && go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; \
		done; \
	done

help: ## this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 8
