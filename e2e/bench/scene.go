package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/entrepot/entrepot/e2e/bench/origin"
	"github.com/entrepot/entrepot/e2e/testbed"
)

// memory is where Linux has a file system in memory. On it no disk is measured.
const memory = "/dev/shm"

// scene is what all measurements have in common: the programs, and the content.
type scene struct {
	bed   *testbed.Bed
	quick bool
	// store is what the counting registry serves.
	store origin.Store
	// files is a directory with the content of the warm workloads, below the paths of their requests; floor is the program
	// that answers from there.
	files, floor string
	// registry and blob are the real one and what it holds, nil until a workload wants them.
	registry *testbed.Registry
	blob     blob
	// stocks are data directories of entrepot by how many blobs they have. Workloads fill those that they want.
	stocks map[int]string
	// storage says where the systems keep their content.
	storage string
}

// newScene builds the programs. Also when it fails, what it returns is to be closed unless nil.
func newScene(ctx context.Context, quick bool) (*scene, error) {
	parent, storage := storage()
	bed, err := testbed.NewIn(ctx, parent)
	if err != nil {
		return nil, err
	}
	s := &scene{bed: bed, quick: quick, storage: storage, stocks: map[int]string{}}
	if s.floor, err = bed.BuildBench(ctx, "floor"); err != nil {
		return s, err
	}
	if s.files, err = bed.Subdir("files"); err != nil {
		return s, err
	}
	return s, os.WriteFile(filepath.Join(s.files, "ready"), []byte("yes\n"), 0o644)
}

func (s *scene) close() error { return s.bed.Close() }

// room is the most that the workloads need at once: 64 blobs that are large, or a real registry with its system.
const room = 18 << 30

// storage returns a directory to work in, and what to call it: in memory if so much room is there.
func storage() (dir, storage string) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err == nil && int64(fs.Bavail)*int64(fs.Bsize) >= room {
		return memory, "memory (" + memory + ")"
	}
	return "", "disk (" + os.TempDir() + "): " + memory + " has no room"
}

// pick returns one of two sizes.
func (s *scene) pick(full, quick int64) int64 {
	if s.quick {
		return quick
	}
	return full
}

// onDisk returns an image like [origin.Store.Image] and has the static systems serve it as well.
func (s *scene) onDisk(repository string, layers ...int64) (origin.Image, error) {
	i, err := s.store.Image(repository, false, layers...)
	if err != nil {
		return i, err
	}
	if _, err := os.Stat(s.file(i.ManifestPath(i.ManifestTag))); err == nil {
		return i, nil
	}
	for _, l := range i.Layers {
		if err := s.writeFile(i.BlobPath(l.Digest), l.Content); err != nil {
			return i, err
		}
	}
	return i, errors.Join(
		s.writeFile(i.BlobPath(i.Config.Digest), i.Config.Content),
		s.writeFile(i.ManifestPath(i.Manifest.Digest), i.Manifest.Content),
		s.writeFile(i.ManifestPath(i.ManifestTag), i.Manifest.Content),
	)
}

func (s *scene) file(path string) string { return filepath.Join(s.files, filepath.FromSlash(path)) }

func (s *scene) writeFile(path string, content func(io.Writer) error) error {
	name := s.file(path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := errors.Join(content(f), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// needRegistry starts the real registry with one blob in it, if it is not there yet.
func (s *scene) needRegistry(ctx context.Context) error {
	if s.registry != nil {
		return nil
	}
	r, err := s.bed.StartRegistry(ctx, nil)
	if err != nil {
		return err
	}
	image, err := s.bed.PushNoise(ctx, r, "library/bench", "1.0", 1, s.pick(256<<20, 48<<20))
	if err != nil {
		return err
	}
	s.registry = r
	s.blob = blob{
		path:   "/v2/" + image.Repository + "/blobs/" + image.Layers[0],
		digest: image.Layers[0],
		size:   image.LayerSizes[0],
	}
	return nil
}
