package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/entrepot/entrepot/e2e/bench/load"
	"github.com/entrepot/entrepot/e2e/bench/origin"
)

// overRegistry is one client's pull of one blob by way of the real registry, to see that the other one does not change the
// picture. The client checks the digest.
var overRegistry = []workload{
	{
		name:         "registry-cold",
		what:         "one client pulls a cold blob of 256 MiB, upstream being the real registry",
		systems:      every,
		columns:      []metric{duration, cpu, upstreamShare, connections, peak},
		overRegistry: true,
		run:          pullBlob,
	},
	{
		name:         "registry-cold-capped",
		what:         "the same, and upstream gives each connection 20 MB/s",
		systems:      every,
		columns:      []metric{duration, cpu, upstreamShare, connections, peak},
		line:         origin.Line{PerConnection: perConnection},
		overRegistry: true,
		long:         true,
		run:          pullBlob,
	},
}

// blob is what the real registry holds.
type blob struct {
	path, digest string
	size         int64
}

// pullBlob reads it once from its beginning to its end.
func pullBlob(t *trial) (values, error) {
	if err := t.start(); err != nil {
		return nil, err
	}
	p, err := t.phase(func() error {
		c, err := t.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		hash := sha256.New()
		if _, err := c.Get(load.Request{Path: t.blob.path}, hash); err != nil {
			return err
		}
		if digest := "sha256:" + hex.EncodeToString(hash.Sum(nil)); digest != t.blob.digest {
			return fmt.Errorf("GET %s: the body has digest %s", t.blob.path, digest)
		}
		return nil
	})
	return values{
		duration:      p.seconds,
		cpu:           p.cpu,
		upstreamShare: float64(p.crossed.bytes) / float64(t.blob.size),
		connections:   float64(p.crossed.connections),
		peak:          inMiB(p.peak),
	}, err
}
