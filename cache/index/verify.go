package index

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
)

// Missing is what Begun, Inspect and Repair say where there was no index.
const Missing = "missing"

// Inspect reads an index that no process has open, and changes nothing. It returns "" if it is as it was left, Missing if there
// is none, and else what is wrong with it. The newest records are not looked at: their log ends wherever a kill has ended it.
func Inspect(own Options) (found string) {
	o := own.filled()
	if _, reason := o.marked(); reason != "" {
		return reason
	}
	if _, err := os.Lstat(filepath.Join(o.Dir, badger.ManifestFilename)); errors.Is(err, fs.ErrNotExist) {
		if tables, _ := filepath.Glob(filepath.Join(o.Dir, "*.sst")); len(tables) > 0 {
			return "there are tables, but no " + badger.ManifestFilename
		}
		return Missing
	}
	if err := o.inspect(); err != nil {
		return err.Error()
	}
	return ""
}

func (o Options) inspect() (err error) {
	defer caught(&err)
	tables, err := o.manifest()
	if err != nil {
		return err
	}
	// What a table's edges say is that it is there; the whole of it may be merged away where a process has it open.
	return errors.Join(o.checkTables(tables, edges), o.checkTables(tables, whole))
}

// Repair reads an index that no process has open, and if it is damaged, moves it aside and begins it anew. It returns what was
// found, as Inspect does.
func Repair(own Options) (found string, err error) {
	o := own.filled()
	if found = Inspect(o); found != "" && found != Missing {
		if err := o.mark(found); err != nil {
			return found, err
		}
	}
	x, err := Open(o)
	if err != nil {
		return found, err
	}
	if x.Temporary() {
		err = x.Settle() // says why
	}
	if begun := x.Begun(); found == "" {
		found = begun
	}
	return found, errors.Join(err, x.Close())
}
