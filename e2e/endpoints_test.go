package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// A mirror that goes down in the middle of a layer costs its client nothing: the rest comes from the next one, and only
// the rest.
func TestTransferGoesOnAtTheNextEndpoint(t *testing.T) {
	i := newInterruption(t, 2)
	i.pull(t, func() error { return i.gates[0].Close() })

	got := i.bytes()
	if got[0] == 0 || got[0] >= interruptedSize {
		t.Errorf("the first endpoint had sent %d bytes of the layer before it went down: nothing was tried", got[0])
	}
	t.Logf("of the image's bytes, %.3f came from the first endpoint, %.3f from the second",
		float64(got[0])/float64(i.image.Bytes), float64(got[1])/float64(i.image.Bytes))
}

// Nor does a registry cost anything that cuts all connections and takes new ones at once, as one that is deployed anew.
func TestTransferGoesOnAfterACut(t *testing.T) {
	i := newInterruption(t, 1)
	i.pull(t, func() error {
		if err := i.gates[0].Close(); err != nil {
			return err
		}
		return i.gates[0].Open()
	})
}

// Nor does one that is gone for long enough to be known to be: new transfers are refused meanwhile, and the one under way waits.
func TestTransferGoesOnOnceItsRegistryIsBack(t *testing.T) {
	i := newInterruption(t, 1)
	i.pull(t, func() error {
		if err := i.gates[0].Close(); err != nil {
			return err
		}
		err := testbed.Until(running, "the outage to be noticed", func(ctx context.Context) error {
			m, err := i.entrepot.Metrics(ctx)
			if failed := m[`entrepot_upstream_requests_total{kind="blob",outcome="failed",registry="docker.io"}`]; err == nil && failed < 1 {
				err = fmt.Errorf("%v requests have failed", failed)
			}
			return err
		})
		return errors.Join(err, i.gates[0].Open())
	})
}

// interruption is a pull in the middle of which something happens to its upstreams.
type interruption struct {
	entrepot *testbed.Entrepot
	// gates are in front of the endpoints, in their order. All have the image.
	gates []*testbed.Gate
	image testbed.Image
}

// The layer takes a second or two: long enough for something to happen to it.
const (
	interruptedSize   = 64 << 20
	interruptedPerSec = 32 << 20
)

func newInterruption(t *testing.T, endpoints int) *interruption {
	t.Helper()
	i := &interruption{}
	var urls []string
	for range endpoints {
		r, err := bed.StartRegistry(running, nil)
		if err != nil {
			t.Fatal(err)
		}
		// The same image each time.
		if i.image, err = bed.PushNoise(running, r, "library/interrupted", "1.0", 1, interruptedSize); err != nil {
			t.Fatal(err)
		}
		gate, err := bed.OpenGate(r)
		if err != nil {
			t.Fatal(err)
		}
		gate.Limit(interruptedPerSec)
		i.gates = append(i.gates, gate)
		urls = append(urls, fmt.Sprintf("{url: %q}", gate.URL()))
	}
	i.entrepot = startEntrepot(t, testbed.EntrepotOptions{
		Config: fmt.Sprintf("registries:\n  docker.io:\n    endpoints: [%s]\n", strings.Join(urls, ", ")),
	})
	return i
}

// pull pulls the image, has interrupt called when half of the layer has passed, and checks that the client does not
// notice and that nothing that had passed is fetched again.
func (i *interruption) pull(t *testing.T, interrupt func() error) {
	t.Helper()
	pulled := make(chan error, 1)
	go func() {
		// It is an error if a body has not the digest that it was asked for by.
		_, err := testbed.Pull(running, i.entrepot.URL(), i.image.Repository, i.image.Tag, "amd64")
		pulled <- err
	}()
	err := testbed.Until(running, "half of the layer to pass", func(context.Context) error {
		if got := i.passed(); got < interruptedSize/2 {
			return fmt.Errorf("%d bytes have passed", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	before := i.passed()
	if before >= interruptedSize {
		t.Errorf("the layer had passed, %d bytes, before it was interrupted: nothing was tried", before)
	}
	if err := interrupt(); err != nil {
		t.Error(err)
	}
	if err := <-pulled; err != nil {
		t.Error(err)
	}
	for _, g := range i.gates {
		if _, err := g.Mark(running); err != nil {
			t.Fatal(err)
		}
	}
	if got, most := i.passed(), i.image.Bytes+i.image.Bytes/20; got > most {
		t.Errorf("%d bytes of the layer passed, %d of them before it was interrupted; the image has %d", got, before, i.image.Bytes)
	} else {
		t.Logf("%.3f of the image's bytes passed, %.3f of them before it was interrupted",
			float64(got)/float64(i.image.Bytes), float64(before)/float64(i.image.Bytes))
	}
}

// bytes is how much of the layer has passed each gate, passed is their sum.
func (i *interruption) bytes() []int64 {
	var bytes []int64
	for _, g := range i.gates {
		bytes = append(bytes, g.Since(0).Of(i.image.Layers[0]).Bytes())
	}
	return bytes
}

func (i *interruption) passed() int64 {
	var sum int64
	for _, n := range i.bytes() {
		sum += n
	}
	return sum
}
