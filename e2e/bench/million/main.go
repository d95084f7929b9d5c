// Command million fills a data directory of entrepot with blobs, as a mirror has them that has served for years. All are of
// 4 KiB and holes: they take no room but for their names, and they are said to be verified, so that nobody looks into them.
// Each is listed as kept, and recorded as belonging to one repository.
//
// It is a module of its own because it needs entrepot's packages, and with them what they need.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/index"
)

const (
	blobSize = 4 << 10
	// writers share the index's way to its log.
	writers = 16
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "million:", err)
		os.Exit(1)
	}
}

// run makes the blobs whose digests are those of the decimal numbers below count.
func run(args []string) (err error) {
	if len(args) != 4 {
		return errors.New("usage: million <data directory> <registry> <repository> <count>")
	}
	repository := index.Repository{Registry: args[1], Name: args[2]}
	count, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	store, err := disk.Open(context.Background(), disk.Options{Dir: args[0]})
	if err != nil {
		return err
	}
	// What is made here is made behind the store's back: its note of how much there is must not stay.
	defer func() { err = errors.Join(err, store.Close(), os.RemoveAll(store.Dir("bound"))) }()
	blobs := store.Dir(filepath.Join("blobs", "sha256"))
	for n := range 256 {
		if err := os.MkdirAll(filepath.Join(blobs, fmt.Sprintf("%02x", n)), 0o750); err != nil {
			return err
		}
	}
	x, err := index.Open(index.Options{Dir: store.Dir("index")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			for n := w; n < count; n += writers {
				if err := add(store, x, blobs, repository, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for n := 0; n < count; n += listed {
		kept := make(map[digest.Digest]bool)
		for i := n; i < min(n+listed, count); i++ {
			kept[digest.NewDigestFromBytes(digest.SHA256, sum(i))] = true
		}
		if err := x.List(kept); err != nil {
			return err
		}
	}
	return x.Settle() // as a mirror does all the time: it merges tables
}

// listed is how many are listed at once.
const listed = 10_000

func add(store *disk.Store, x *index.Index, blobs string, repository index.Repository, n int) error {
	d := digest.NewDigestFromBytes(digest.SHA256, sum(n))
	f, err := os.OpenFile(filepath.Join(blobs, d.Encoded()[:2], d.Encoded()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(blobSize), f.Close()); err != nil {
		return err
	}
	c, err := store.Blob(d)
	if err != nil {
		return err
	}
	if err := errors.Join(store.Stamp(c, time.Now()), c.Close()); err != nil {
		return err
	}
	return x.Confirm(repository, d, index.Member{MediaType: "application/octet-stream", Size: blobSize, Confirmed: true})
}

func sum(n int) []byte {
	s := sha256.Sum256([]byte(strconv.Itoa(n)))
	return s[:]
}
