package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// memory is where Linux has a file system in memory. On it no disk is measured.
const memory = "/dev/shm"

// scene is what all systems have in common: a registry that holds one blob.
type scene struct {
	bed      *testbed.Bed
	registry *testbed.Registry
	blob     blob
	// storage says where the registry and the systems keep their content.
	storage string
}

// newScene builds and starts it. Also when it fails, what it returns is to be closed unless nil.
func newScene(ctx context.Context, size int64) (*scene, error) {
	// The registry's copy, the layer while it is being made, a system's copy, and what else there is.
	parent, storage := place(4*size + 1<<30)
	bed, err := testbed.NewIn(ctx, parent)
	if err != nil {
		return nil, err
	}
	s := &scene{bed: bed, storage: storage}
	if s.registry, err = bed.StartRegistry(ctx, nil); err != nil {
		return s, err
	}
	image, err := bed.PushNoise(ctx, s.registry, "library/bench", "1.0", 1, size)
	if err != nil {
		return s, err
	}
	s.blob = blob{
		path:   "/v2/" + image.Repository + "/blobs/" + image.Layers[0],
		digest: image.Layers[0],
		size:   image.LayerSizes[0],
	}
	return s, nil
}

// place returns a directory to work in, and what to call it: in memory if so much room is there.
func place(room int64) (dir, storage string) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err == nil && int64(fs.Bavail)*int64(fs.Bsize) >= room {
		return memory, "memory (" + memory + ")"
	}
	return "", "disk (" + os.TempDir() + "): " + memory + " has no room"
}

func (s *scene) close() error { return s.bed.Close() }

// measurement is one run of a workload on a system.
type measurement struct {
	// Seconds is what the client's work took.
	Seconds float64 `json:"seconds"`
	// UpstreamRatio is what upstream sent, with the protocol's own bytes, for each byte of the blob.
	UpstreamRatio float64 `json:"upstream_ratio"`
	// Connections to upstream, of which a system may have opened more than it used.
	Connections int64 `json:"connections"`
	usage
}

// measure runs w once on y.
func (s *scene) measure(ctx context.Context, w workload, y system) (m measurement, err error) {
	r, err := openRoad(s.registry.Address)
	if err != nil {
		return m, err
	}
	r.perConnection.Store(int64(w.perConnection))
	subject, err := y.start(ctx, s, r.url())
	if err != nil {
		return m, errors.Join(err, r.close())
	}
	start := time.Now()
	err = w.run(ctx, subject.URL(), s.blob)
	m.Seconds = time.Since(start).Seconds()
	usage, ended := subject.End()
	// The system has ended: what has crossed is all that will.
	if err := errors.Join(err, ended, r.close()); err != nil {
		return m, err
	}
	all := r.crossed()
	m.usage, m.Connections = usage, all.connections
	m.UpstreamRatio = float64(all.bytes) / float64(s.blob.size)
	return m, nil
}

// mebibytes spells a size.
func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }
