package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// check compares what is there after a start with what was there before the kill.
func (c *crash) check() error {
	return errors.Join(c.checkDirectory(), c.checkHits())
}

var (
	// partialName is of what may be in partial/ when nothing is under way: what is parked, and the note that goes with it.
	partialName = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.state)?$`)
	blobName    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// checkDirectory looks for leftovers.
func (c *crash) checkDirectory() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }

	names := map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(c.entrepot.Data, "partial"))
	for _, e := range entries {
		names[e.Name()] = true
		if !partialName.MatchString(e.Name()) {
			bad("partial/%s was left there", e.Name())
		}
	}
	for name := range names {
		if other, isState := strings.CutSuffix(name, ".state"); isState && !names[other] {
			bad("partial/%s was left there without what it belongs to", name)
		} else if !isState && !names[name+".state"] {
			bad("partial/%s was left there without its state", name)
		}
	}
	if damaged, _ := filepath.Glob(filepath.Join(c.entrepot.Data, "*damaged*")); len(damaged) > 0 {
		bad("a kill is no damage, but %v is there", damaged)
	}
	blobs := filepath.Join(c.entrepot.Data, "blobs")
	err = errors.Join(err, filepath.WalkDir(blobs, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !blobName.MatchString(e.Name()) {
			bad("%s is no blob", path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}))
	occupied, failed := testbed.Allocated(c.entrepot.Data)
	if c.cap > 0 && occupied > c.cap {
		bad("%d bytes are taken up, of %d", occupied, c.cap)
	}
	return errors.Join(append(errs, err, failed)...)
}

// blobFile is where entrepot keeps a blob.
func blobFile(e *testbed.Entrepot, digest string) string {
	encoded := strings.TrimPrefix(digest, "sha256:")
	return filepath.Join(e.Data, "blobs", "sha256", encoded[:2], encoded)
}

// onDisk tells whether a blob has its name.
func (c *crash) onDisk(digest string) bool {
	_, err := os.Stat(blobFile(c.entrepot, digest))
	return err == nil
}

// checkHits asks again for what was a hit: it is one still, unless it had to make room.
func (c *crash) checkHits() error {
	hits := c.hits
	c.hits = map[string]hit{}
	var errs []error
	for digest, h := range hits {
		path := h.image.BlobPath(digest)
		before, there := c.upstream.Count(), c.onDisk(digest)
		a, err := c.head(running, path)
		there = there && c.onDisk(digest)
		cost := c.upstream.Count().Since(before)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case a.hit():
			c.kills.hits++
		case there || c.cap == 0:
			errs = append(errs, fmt.Errorf("%s was a hit before the kill; on disk now: %v; it is %q, at the cost of %+v",
				digest, there, a.verdict, cost))
		default:
			// There is no telling what was evicted just before the kill from what was lost by it: that is for the mirror that
			// has room for all.
			c.kills.gone++
		}
		if _, err := c.blob(running, h.image, h.blob); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
