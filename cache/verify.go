package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/index"
)

// ErrLocked says that another process has the data directory open.
var ErrLocked = disk.ErrLocked

// VerifyOptions say which data directory is verified, and how. DataDir is required.
type VerifyOptions struct {
	DataDir  string
	IndexDir string // the directory of the index; "": index in DataDir
	MaxSize  int64  // as the mirror has it, as is
	MinFree  int64
	Check    bool // nothing is changed

	Progress func(done, total int64) // told, by several goroutines at once, how many bytes have been read; may be nil
	Log      *zap.Logger             // may be nil
}

// VerifyReport says what was found.
type VerifyReport struct {
	AllBlobs  int           `json:"all_blobs"` // blobs and manifests that there are
	AllBytes  int64         `json:"all_bytes"`
	Blobs     int           `json:"blobs"` // of these, what was read
	Bytes     int64         `json:"bytes"`
	Right     int           `json:"right"`
	Adopted   int           `json:"adopted"` // of what is right, what was not known to be: put there, or changed, by somebody else
	Wrong     []Wrong       `json:"wrong"`
	Leftovers int           `json:"leftovers"`       // files in partial/ that are nobody's
	Index     string        `json:"index,omitempty"` // "": as it was left; "missing"; else what is wrong with it
	Took      time.Duration `json:"nanoseconds"`
}

// Wrong is content that can't be served.
type Wrong struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Damage Damage        `json:"damage"`
}

// Sound reports whether nothing was wrong. Leftovers are what every kill leaves, and the next start removes.
func (r *VerifyReport) Sound() bool {
	return len(r.Wrong) == 0 && (r.Index == "" || r.Index == index.Missing)
}

// Verify reads all that is kept in a data directory that no process has open, with all processors: what is right is stamped as
// verified, what is wrong is removed; leftovers go, and an index that is damaged is moved aside. When ctx ends, it ends, and the
// report says how far it came.
func Verify(ctx context.Context, opts VerifyOptions) (VerifyReport, error) {
	if opts.Log == nil {
		opts.Log = zap.NewNop()
	}
	v := &verifier{opts: opts, report: VerifyReport{Wrong: []Wrong{}}}
	begun := time.Now()
	err := v.run(ctx)
	v.report.Took = time.Since(begun)
	return v.report, err
}

type verifier struct {
	opts  VerifyOptions
	store *disk.Store
	read  atomic.Int64 // bytes

	mu sync.Mutex
	// guards following
	report VerifyReport
}

func (v *verifier) run(ctx context.Context) (err error) {
	if _, err := os.Stat(filepath.Join(v.opts.DataDir, "blobs")); err != nil {
		return fmt.Errorf("%s is no data directory of a mirror: %w", v.opts.DataDir, err)
	}
	if v.store, err = disk.Open(ctx, disk.Options{
		Dir: v.opts.DataDir, MaxSize: v.opts.MaxSize, MinFree: v.opts.MinFree, Look: v.opts.Check}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.store.Close()) }()
	if v.store.ReadOnly() && !v.opts.Check {
		return fmt.Errorf("data directory %s: %w: it can be checked, but not mended", v.opts.DataDir, syscall.EROFS)
	}
	v.report.Leftovers = v.store.Leftovers()
	recordsErr := v.records()
	// Somebody waits, and wants to know how much there is. To list it takes a fraction of what it takes to read it.
	err = v.store.Walk(ctx, func(dir []disk.Entry) error {
		v.report.AllBlobs += len(dir)
		for _, e := range dir {
			v.report.AllBytes += e.Size
		}
		return nil
	})
	if ctx.Err() != nil {
		return err
	}
	strays, strayErr := v.store.Strays(ctx)
	v.report.AllBlobs += len(strays)
	for _, d := range strays {
		strayErr = errors.Join(strayErr, v.wrong(disk.Entry{Digest: d}, DamagedUnreadable, errors.New("it is no file")))
	}
	// What can't be mended or listed is no reason not to read what can be.
	return errors.Join(recordsErr, err, strayErr, v.content(ctx))
}

// records verifies the index.
func (v *verifier) records() (err error) {
	own := index.Options{Dir: v.store.Dir("index"), Roomy: v.store.Roomy, Log: v.opts.Log}
	if elsewhere := v.opts.IndexDir; elsewhere != "" && elsewhere != own.Dir {
		own.Dir, own.Roomy = elsewhere, func() bool { return disk.RoomyAt(elsewhere) }
	}
	if v.opts.Check {
		v.report.Index = index.Inspect(own)
		return nil
	}
	v.report.Index, err = index.Repair(own)
	return err
}

// content verifies all content.
func (v *verifier) content(ctx context.Context) error {
	workers := runtime.GOMAXPROCS(0)
	group, ctx := errgroup.WithContext(ctx)
	todo := make(chan disk.Entry, 4*workers)
	group.Go(func() error {
		defer close(todo)
		_ = v.store.Walk(ctx, func(dir []disk.Entry) error {
			for _, e := range dir {
				select {
				case todo <- e:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
		return ctx.Err() // what can't be listed has been said
	})
	for range workers {
		group.Go(func() error {
			buf := make([]byte, 1<<20)
			for e := range todo {
				if err := v.one(ctx, e, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// one verifies one content. The error is what keeps it from going on.
func (v *verifier) one(ctx context.Context, e disk.Entry, buf []byte) error {
	c, err := v.store.Blob(e.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody who does not heed the lock
	}
	if err != nil {
		return v.wrong(e, DamagedUnreadable, err)
	}
	defer c.Close()
	known := !c.Verified.IsZero()
	right, err := v.hash(ctx, c, e.Digest, buf)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return v.wrong(e, DamagedUnreadable, err)
	case !right:
		return v.wrong(e, DamagedContent, nil)
	}
	if !v.opts.Check {
		if err := v.store.Stamp(c, time.Now()); err != nil {
			return fmt.Errorf("%s is right, which can't be noted: %w", e.Digest, err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Blobs++
	v.report.Bytes += c.Size
	v.report.Right++
	if !known {
		v.report.Adopted++
	}
	return nil
}

// hash reports whether what a file holds has that digest.
func (v *verifier) hash(ctx context.Context, f *disk.Content, d digest.Digest, buf []byte) (bool, error) {
	verifier := d.Verifier()
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		_, _ = verifier.Write(buf[:n]) // a hash takes all
		if done := v.read.Add(int64(n)); v.opts.Progress != nil {
			v.opts.Progress(done, v.report.AllBytes)
		}
		if err == io.EOF {
			return verifier.Verified(), nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, ctx.Err()
}

// wrong takes down what can't be served, and removes it.
func (v *verifier) wrong(e disk.Entry, damage Damage, cause error) error {
	v.opts.Log.Debug("content is damaged", zap.Stringer("digest", e.Digest), zap.String("damage", string(damage)), zap.Error(cause))
	v.mu.Lock()
	v.report.Blobs++
	v.report.Bytes += e.Size
	v.report.Wrong = append(v.report.Wrong, Wrong{e.Digest, e.Size, damage})
	v.mu.Unlock()
	if v.opts.Check {
		return nil
	}
	v.store.Meet(e.Digest) // what is counted can be uncounted
	return v.store.Remove(e.Digest, e.Size)
}
