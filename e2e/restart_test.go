package e2e

import (
	"io"
	"net/http"
	"testing"
)

func TestRestartKeepsTheCache(t *testing.T) {
	m := startMirror(t, open, nil)
	if err := m.entrepot.Kept(running, rawPull(t, m, images.index)); err != nil {
		t.Fatal(err)
	}
	m.mark(t)
	if err := m.gate.Close(); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func() error{m.entrepot.Stop, m.entrepot.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := m.entrepot.Start(running); err != nil {
			t.Fatal(err)
		}
		rawPull(t, m, images.index)
	}
}

// A crash in the middle of a transfer neither passes for its end nor leaves anything behind that is taken for content.
func TestKilledTransferDoesNoHarm(t *testing.T) {
	const (
		size           = 32 << 20
		bytesPerSecond = 16 << 20
	)
	image, err := bed.PushNoise(running, open, "library/killed", "1.0", 2, size)
	if err != nil {
		t.Fatal(err)
	}
	m := startMirror(t, open, nil)
	m.gate.Limit(bytesPerSecond)

	// Half of the layer, and then a crash in the face of the client.
	resp, err := http.Get(m.entrepot.URL() + "/v2/" + image.Repository + "/blobs/" + image.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, size/2); err != nil {
		t.Fatal(err)
	}
	if err := m.entrepot.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("the client of the killed transfer was told that its body is complete")
	}
	if err := m.entrepot.Start(running); err != nil {
		t.Fatal(err)
	}
	rawPull(t, m, image)
}
