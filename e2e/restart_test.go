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

// A crash in the middle of a transfer does not pass for its end, and costs next to nothing: what had arrived is there.
func TestKilledTransferIsTakenUpWhereItWas(t *testing.T) {
	const (
		size           = 64 << 20
		bytesPerSecond = 32 << 20
	)
	image, err := bed.PushNoise(running, open, "library/killed", "1.0", 1, size)
	if err != nil {
		t.Fatal(err)
	}
	m := startMirror(t, open, nil)
	m.gate.Limit(bytesPerSecond)

	// Most of the layer, and then a crash in the face of the client.
	resp, err := http.Get(m.entrepot.URL() + "/v2/" + image.Repository + "/blobs/" + image.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, size*6/10); err != nil {
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
	if got, most := m.gate.Since(0).Of("/blobs/").Bytes(), image.Bytes+image.Bytes/20; got > most {
		t.Errorf("%d bytes of blobs crossed for %d, over both lives", got, image.Bytes)
	} else {
		t.Logf("%.3f of the image's bytes crossed, over both lives", float64(got)/float64(image.Bytes))
	}
}
