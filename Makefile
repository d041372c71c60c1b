# Sluice. Needs Go and make; `make tools` installs what the tests need besides (Debian packages).

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   = -s -w -X main.version=$(VERSION)
BUILD     = CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'
FUZZTIME ?= 1m
SEEDS    ?= 5000
BENCH    ?= .
COUNT    ?= 1
KILLS    ?= 500
CUTS     ?= 1000
MQLOAD   ?= ../shared/mqload
ARGS     ?=

# The simulator and the end-to-end tests have steps of their own.
UNIT = $$(go list ./... | grep -v -e /broker/sim -e /e2e)

# What `make test` runs, in order.
STEPS = lint unit unit32 race sim e2e cross

.PHONY: run build test tools lint unit unit32 race fuzz sim e2e kill powercut bench compare cross demo clean

run: build      # build the broker and run it: make run ARGS='-c my.toml'
	bin/sluice run $(ARGS)

build:          # build bin/sluice for this machine
	$(BUILD) -o bin/sluice ./cmd/sluice

test: tools     # run everything that must pass, and print the time of each step
	@deploy/steps.sh $(STEPS)

tools:          # install what the tests need, where it is missing
	@deploy/tools.sh

lint:           # check formatting, go vet (32-bit and all build tags included) and staticcheck
	@files=$$(gofmt -l .); if [ -n "$$files" ]; then echo "not formatted:"; echo "$$files"; exit 1; fi
	go vet ./...
	go vet -tags 'invariants canary' ./...
	GOOS=linux GOARCH=arm go vet ./...
	go tool staticcheck ./...

unit:           # run the unit tests, the fuzz seeds among them
	go test -count=1 -timeout 5m $(UNIT)

unit32:         # run the unit tests as a 32-bit program, where this machine can
	@if [ "$$(go env GOARCH)" = amd64 ]; then set -x; GOARCH=386 CGO_ENABLED=0 go test -count=1 -timeout 5m $(UNIT); \
	else echo "skipped: only amd64 runs 32-bit x86 programs"; fi

race:           # run the unit tests with the race detector and run-time checks
	CGO_ENABLED=1 go test -race -tags invariants -count=1 -timeout 10m $(UNIT)

fuzz:           # fuzz every target for FUZZTIME each
	@deploy/fuzz.sh $(FUZZTIME) $(UNIT)

sim:            # run the simulator over SEEDS seeds, and then the canaries: known bugs that it must find
	go test -count=1 -timeout 15m ./broker/sim -seeds $(SEEDS)
	go test -count=1 -timeout 15m -tags canary ./broker/sim

e2e:            # test the built binary with real clients and a real upstream
	go test -count=1 -timeout 15m ./cmd/sluice/e2e/...

kill:           # kill the broker KILLS times under load, and count what is lost
	go test -count=1 -timeout 60m ./cmd/sluice/e2e -v -run 'TestKillLoop$$' -args -kills $(KILLS)

powercut:       # cut the power of a broker's disk CUTS times, and count what is lost
	go test -count=1 -timeout 60m ./cmd/sluice/e2e/crash -v -run PowerCut -args -cuts $(CUTS)

bench:          # run the benchmarks, as benchstat reads them: make bench BENCH=Match COUNT=10
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) $(UNIT)

compare:        # measure against mosquitto in the same run; MQLOAD is the source of the load generator
	@deploy/compare.sh $(MQLOAD)

cross:          # build dist/ for all supported machines and print the sizes
	@deploy/cross.sh '$(VERSION)'

demo: tools     # cut the uplink, kill the gateway, restore the uplink, and count what arrives
	go run ./cmd/demo $(ARGS)

clean:          # remove what was built
	rm -rf bin dist
