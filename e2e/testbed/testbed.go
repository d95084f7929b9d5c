// Package testbed sets up what a trial of entrepot needs on one machine: a real registry, real images in it, a road
// to it that counts and can be closed, and the entrepot binary in front.
//
// A [Bed] owns a temporary directory and everything that was started in it. Closing it ends the processes, undoes
// mounts that container engines left, and removes the directory, in that order. All servers listen on loopback.
//
// The package knows nothing of package testing: the tests and the demonstration use it alike.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// Bed is one trial's directory, programs and processes.
type Bed struct {
	// Dir holds all files of the trial.
	Dir string
	// Programs are what was built for it.
	Programs Programs

	mu sync.Mutex
	// guards following
	closers []func() error
	dirs    int
}

// New makes the directory and builds the programs.
func New(ctx context.Context) (*Bed, error) { return NewIn(ctx, "") }

// NewIn is New with the bed's directory below parent instead of where temporary files go.
func NewIn(ctx context.Context, parent string) (*Bed, error) {
	// A short name: unix sockets below it must stay under 108 bytes.
	dir, err := os.MkdirTemp(parent, "entrepot-e2e-")
	if err != nil {
		return nil, err
	}
	// Programs that run as ordinary users are in it, and their data.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	b := &Bed{Dir: dir}
	if b.Programs, err = build(ctx, filepath.Join(dir, "bin")); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// Subdir makes a new directory in the bed.
func (b *Bed) Subdir(name string) (string, error) {
	b.mu.Lock()
	b.dirs++
	dir := filepath.Join(b.Dir, fmt.Sprintf("%s-%d", name, b.dirs))
	b.mu.Unlock()
	return dir, os.Mkdir(dir, 0o755)
}

// OnClose has f called by Close, the latest first.
func (b *Bed) OnClose(f func() error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closers = append(b.closers, f)
}

// Close ends what was started and removes the directory. It may be called again.
func (b *Bed) Close() error {
	b.mu.Lock()
	closers := b.closers
	b.closers = nil
	b.mu.Unlock()
	var errs []error
	for i := len(closers) - 1; i >= 0; i-- {
		errs = append(errs, closers[i]())
	}
	return errors.Join(append(errs, Sweep(b.Dir))...)
}

// Sweep ends processes that were left with dir on their command line, undoes mounts below dir, and removes dir.
func Sweep(dir string) error {
	return errors.Join(endLeftovers(dir), unmountBelow(dir), os.RemoveAll(dir))
}

// FreeAddress returns a loopback address that nobody listened on a moment ago. The programs started here want
// their port told, so the gap between asking and taking it can't be closed; a loss of the race shows as a process
// that exits before it is ready.
func FreeAddress() (string, error) {
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		address := l.Addr().String()
		if err := l.Close(); err != nil {
			return "", err
		}
		if _, taken := given.LoadOrStore(address, true); !taken {
			return address, nil
		}
	}
}

// given are the addresses that FreeAddress has returned: a port is free until the program that it is for listens.
var given sync.Map
