package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// check looks through the directory before Badger does, which would die of some kinds of damage, and hide others. It removes
// what is of no use: no record is in a value log, and a log of no size is one that a kill left behind, which Badger refuses.
func (o Options) check() (err error) {
	defer caught(&err)
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return err
	}
	var began, records bool
	for _, e := range entries {
		if !isBadgers(e.Name()) {
			continue
		}
		path := o.path(e.Name())
		info, err := e.Info()
		if err != nil {
			return err
		}
		ext := filepath.Ext(e.Name())
		empty := ext == ".mem" && info.Size() == 0
		switch {
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is no file", path)
		case empty, ext == ".vlog", e.Name() == "DISCARD":
			if err := os.Remove(path); err != nil {
				return err
			}
		case e.Name() == badger.ManifestFilename:
			began = true
		case ext == ".mem", ext == ".sst":
			records = true
		}
	}
	if !began {
		if records {
			return errors.New("there are tables, but no " + badger.ManifestFilename)
		}
		return nil
	}
	tables, err := o.manifest()
	if err != nil {
		return err
	}
	return o.checkTables(tables, edges)
}

// isBadgers reports whether a file is of the store. There may be others in the directory, if it is the root of a file system.
func isBadgers(name string) bool {
	switch filepath.Ext(name) {
	case ".mem", ".sst", ".vlog":
		return true
	}
	return slices.Contains([]string{badger.ManifestFilename, "MANIFEST-REWRITE", badger.KeyRegistryFileName,
		badger.KeyRegistryRewriteFileName, "DISCARD"}, name)
}

// manifest is the tables that are to be there. Others are leftovers, which Badger removes.
func (o Options) manifest() ([]uint64, error) {
	f, err := os.Open(o.path(badger.ManifestFilename))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, _, err := badger.ReplayManifestFile(f, 0, badgerOptions(o.Dir, o.Log))
	if err != nil {
		return nil, err
	}
	var ids []uint64
	for id := range m.Tables {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// extent says how much of a table is looked at: what Badger reads to open it, or all of it.
type extent bool

const (
	edges extent = false
	whole extent = true
)

func (o Options) checkTables(ids []uint64, how extent) (err error) {
	defer caught(&err)
	for _, id := range ids {
		path := table.NewFilename(id, o.Dir)
		err := checkTable(path, how)
		if errors.Is(err, fs.ErrNotExist) && how == whole {
			continue // merged into others meanwhile
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// caught makes a panic an error, for parsers of what may be damaged.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v", p)
	}
}

// checkTable compares the checksums of a table: of its blocks, and of the list of them that follows. A table ends with that
// list, the list's length, its checksum, and the checksum's length.
func checkTable(path string, how extent) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	t := tail{f, info.Size()}
	list, err := t.summed()
	if err != nil {
		return err
	}
	index := fb.GetRootAsTableIndex(list, 0)
	first := 0
	if how == edges {
		first = max(0, index.OffsetsLength()-1)
	}
	for i := first; i < index.OffsetsLength(); i++ {
		var at fb.BlockOffset
		if !index.Offsets(&at, i) {
			return errTable
		}
		if err := checkBlock(f, int64(at.Offset()), int64(at.Len())); err != nil {
			return err
		}
	}
	return nil
}

var errTable = errors.New("ill-formed table")

// checkBlock compares the checksum of a block, which ends with that and its length.
func checkBlock(f *os.File, offset, size int64) error {
	t := tail{f, offset + size}
	sum, err := t.take()
	if err != nil {
		return err
	}
	data, err := t.bytes(t.end - offset)
	if err != nil {
		return err
	}
	return compare(data, sum)
}

func compare(data, sum []byte) error {
	var want pb.Checksum
	if err := proto.Unmarshal(sum, &want); err != nil {
		return err
	}
	return y.VerifyChecksum(data, &want)
}

// tail reads a file from the end forwards.
type tail struct {
	f   *os.File
	end int64
}

func (t *tail) bytes(n int64) ([]byte, error) {
	if n < 0 || n > t.end {
		return nil, errTable
	}
	t.end -= n
	b := make([]byte, n)
	_, err := t.f.ReadAt(b, t.end)
	return b, err
}

// take reads what its length follows.
func (t *tail) take() ([]byte, error) {
	size, err := t.bytes(4)
	if err != nil {
		return nil, err
	}
	return t.bytes(int64(binary.BigEndian.Uint32(size)))
}

func (t *tail) summed() ([]byte, error) {
	sum, err := t.take()
	if err != nil {
		return nil, err
	}
	data, err := t.take()
	if err != nil {
		return nil, err
	}
	return data, compare(data, sum)
}
