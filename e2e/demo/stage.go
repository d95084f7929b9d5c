package main

import (
	"context"
	"fmt"
	"time"

	"github.com/entrepot/entrepot/e2e/testbed"
)

const (
	// lineSpeed is that of a good line to a registry: a gigabit, less what the protocols take.
	lineSpeed = 100_000_000
	// layerSize is a layer such as language runtimes and CUDA images have; it takes two seconds on that line.
	layerSize = 200 << 20
	// herd is a node pool that scales up, or a CI job that fans out.
	herd = 24
	// arch is what the clients say they are. They run nothing, so it need not be this machine's.
	arch = "amd64"
	// tagTTL is so short that the tag of the first scene has surely expired in the last.
	tagTTL = time.Second
)

// stage is what the scenes play on.
type stage struct {
	tell        *teller
	bed         *testbed.Bed
	gate        *testbed.Gate
	entrepot    *testbed.Entrepot
	small, huge testbed.Image
}

// newStage builds and starts everything. Also when it fails, what it returns is to be closed unless nil.
func newStage(ctx context.Context, tell *teller) (*stage, error) {
	start := time.Now()
	tell.line("Building entrepot, a registry and the images; the first time takes a minute or two …")
	bed, err := testbed.New(ctx)
	if err != nil {
		return nil, err
	}
	s := &stage{tell: tell, bed: bed}
	registry, err := bed.StartRegistry(ctx, nil)
	if err != nil {
		return s, err
	}
	if s.small, err = bed.PushIndex(ctx, registry, "library/hello", "1.0"); err != nil {
		return s, err
	}
	if s.huge, err = bed.PushNoise(ctx, registry, "library/huge", "1.0", 1, layerSize); err != nil {
		return s, err
	}
	if s.gate, err = bed.OpenGate(registry); err != nil {
		return s, err
	}
	s.gate.Limit(lineSpeed)
	s.entrepot, err = bed.StartEntrepot(ctx, testbed.EntrepotOptions{Config: fmt.Sprintf(
		"cache: {tag_ttl: %v}\nregistries:\n  docker.io:\n    endpoints: [{url: %q}]\n", tagTTL, s.gate.URL())})
	if err != nil {
		return s, err
	}
	tell.line("Ready after %s. Everything runs on this machine:", seconds(time.Since(start)))
	tell.blank()
	tell.pair("registry", registry.Address+"   the upstream, in place of Docker Hub")
	tell.pair("the line", s.gate.Address()+"   counts what crosses it, and is slowed to "+size(lineSpeed)+"/s")
	tell.pair("entrepot", s.entrepot.Address+"   where the clients pull")
	return s, nil
}

func (s *stage) close() error { return s.bed.Close() }

// pull pulls i by its tag and makes sure that it is what was pushed.
func (s *stage) pull(ctx context.Context, i testbed.Image) (testbed.Pulled, error) {
	p, err := testbed.Pull(ctx, s.entrepot.URL(), i.Repository, i.Tag, arch)
	if err != nil {
		return p, err
	}
	if p.Digest != i.Digest {
		return p, fmt.Errorf("pulled %s, but pushed was %s", p.Digest, i.Digest)
	}
	return p, nil
}

// crossing returns what crossed the line while f ran.
func (s *stage) crossing(ctx context.Context, f func() error) (testbed.Traffic, error) {
	mark, err := s.gate.Mark(ctx)
	if err != nil {
		return nil, err
	}
	if err := f(); err != nil {
		return nil, err
	}
	// What entrepot fetches for itself counts as well.
	if _, err := s.gate.Mark(ctx); err != nil {
		return nil, err
	}
	return s.gate.Since(mark), nil
}

// check is an error of the given text unless ok.
func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}
