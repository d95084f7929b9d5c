package e2e

import (
	"sync"
	"testing"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// However many clients want a layer that is not there yet, it crosses the line to upstream once.
func TestHerdCostsOneTransfer(t *testing.T) {
	const (
		clients = 16
		size    = 32 << 20
		// The line is slow enough that all clients are there before the layer is.
		bytesPerSecond = 16 << 20
	)
	image, err := bed.PushNoise(running, open, "library/herd", "1.0", 1, size)
	if err != nil {
		t.Fatal(err)
	}
	m := startMirror(t, open, nil)
	m.gate.Limit(bytesPerSecond)

	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			p, err := testbed.Pull(running, m.entrepot.URL(), image.Repository, image.Tag, "amd64")
			if err != nil {
				t.Error(err)
			} else if p.Digest != image.Digest {
				t.Errorf("pulled %s, pushed was %s", p.Digest, image.Digest)
			}
		})
	}
	wg.Wait()

	m.mark(t)
	// A little more is allowed: a connection that is given up has bytes under way.
	if got, most := m.gate.Since(0).Of("/blobs/").Bytes(), image.Bytes+image.Bytes/20; got < image.Bytes || got > most {
		t.Errorf("%d clients cost %d bytes of blobs from upstream; the image has %d", clients, got, image.Bytes)
	}
}
