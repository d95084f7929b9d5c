package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
)

// workload is something that clients ask of a system, and how upstream answers meanwhile.
type workload struct {
	name string
	// what is a sentence with a place for the blob's size.
	what string
	// perConnection is how many bytes a second upstream gives each connection, 0 for all it can.
	perConnection int
	// run does the work; its time is what is measured.
	run func(ctx context.Context, base string, b blob) error
}

// perConnection is modest: what a content network gives one connection from far away.
const perConnection = 20_000_000

var workloads = []workload{
	{
		name:          "cold-capped",
		what:          "one client pulls one blob of %s that is not in the cache; upstream gives each connection 20 MB/s",
		perConnection: perConnection,
		run:           pull,
	},
	{
		name: "cold",
		what: "one client pulls one blob of %s that is not in the cache; upstream gives all that it can",
		run:  pull,
	},
}

func (w workload) title() string { return w.name }

func (w workload) about(size int64) string { return fmt.Sprintf(w.what, mebibytes(size)) }

// blob is what is pulled.
type blob struct {
	path, digest string
	size         int64
}

// pull reads b once from its beginning to its end, as most clients do, on a connection of its own.
func pull(ctx context.Context, base string, b blob) error {
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+b.path, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", b.path, resp.Status)
	}
	hash := sha256.New()
	// A buffer as large as makes no difference: how often the client reads is not what is measured.
	n, err := io.CopyBuffer(hash, resp.Body, make([]byte, 1<<20))
	if err != nil {
		return fmt.Errorf("GET %s: after %d bytes: %w", b.path, n, err)
	}
	if digest := "sha256:" + hex.EncodeToString(hash.Sum(nil)); digest != b.digest {
		return fmt.Errorf("GET %s: the body has digest %s", b.path, digest)
	}
	return nil
}
