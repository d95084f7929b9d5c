package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// system is a way from the client to upstream.
type system struct {
	name string
	// able is nil if the system can run here, and says why not otherwise.
	able func(ctx context.Context, s *scene) error
	// start runs one, on an empty store, that gets its content from upstream.
	start func(ctx context.Context, s *scene, upstream string) (subject, error)
}

func (y system) title() string { return y.name }

// subject is a system that runs.
type subject interface {
	// URL is where the client pulls.
	URL() string
	// End ends it, removes its store, and says what it took.
	End() (usage, error)
}

// usage is what a system took of the machine.
type usage struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	PeakBytes  int64   `json:"peak_bytes"`
}

// systems are compared with the first.
var systems = []system{
	{
		name:  "direct",
		able:  func(context.Context, *scene) error { return nil },
		start: func(_ context.Context, _ *scene, upstream string) (subject, error) { return direct(upstream), nil },
	},
	entrepot("entrepot"),
	entrepot("entrepot-1", "ENTREPOT_REGISTRIES_DOCKER_IO_CONNECTIONS_PER_BLOB=1"),
}

// direct is no system at all.
type direct string

func (d direct) URL() string       { return string(d) }
func (direct) End() (usage, error) { return usage{}, nil }

// entrepot is the mirror with its defaults but for settings.
func entrepot(name string, settings ...string) system {
	return system{
		name: name,
		able: func(ctx context.Context, s *scene) error {
			// An older binary, given by ENTREPOT_BIN, may not know the settings.
			_, err := testbed.Run(ctx, settings, s.bed.Programs.Entrepot, "config", "check")
			return err
		},
		start: func(ctx context.Context, s *scene, upstream string) (subject, error) {
			e, err := s.bed.StartEntrepot(ctx, testbed.EntrepotOptions{Upstream: upstream, Env: settings})
			if err != nil {
				return nil, err
			}
			return process{e}, nil
		},
	}
}

// process is an entrepot that runs.
type process struct{ *testbed.Entrepot }

// End asks for the memory first, which only a living process has, and for the time last: what is done after the client
// has its last byte counts as well.
func (p process) End() (usage, error) {
	peak, err := p.PeakMemory()
	if err := errors.Join(err, p.Remove()); err != nil {
		return usage{}, fmt.Errorf("ending entrepot: %w", err)
	}
	return usage{CPUSeconds: p.CPUTime().Seconds(), PeakBytes: peak}, nil
}
