package index

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// writeOn writes to an index all the time, as fast as it can, and settles it often. For each line that it reads it tells how
// many records were written and refused so far, and whether the index is in memory. At the end of its input it closes the index.
//
// It is the process that package e2e runs on small file systems.
func writeOn(dir string) error {
	x, err := Open(Options{Dir: dir})
	if err != nil {
		return err
	}
	var written, refused atomic.Int64
	var over atomic.Bool
	failed := make(chan error, 2)
	go func() {
		defer close(failed)
		for i := 0; !over.Load(); i++ {
			tag, rec := knownTag(i % known)
			switch err := x.SetTag(repo, tag, rec); {
			case err == nil:
				written.Add(1)
			case errors.Is(err, ErrNoRoom):
				refused.Add(1)
				<-time.After(time.Millisecond) // of a writer that asks again and again
			default:
				failed <- err
				return
			}
			if i%1000 == 0 {
				_ = x.Settle()
				if _, err := recall(x); err != nil {
					failed <- err
					return
				}
			}
		}
	}()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(written.Load(), refused.Load(), x.Temporary())
	}
	over.Store(true)
	return errors.Join(<-failed, x.Close())
}

// closeOn writes to an index, and closes it when there is no room for anything.
func closeOn(dir string) error {
	var full atomic.Bool
	x, err := Open(Options{Dir: dir, Roomy: func() bool { return !full.Load() }})
	if err != nil {
		return err
	}
	err = learn(x, 0, known)
	full.Store(true)
	return errors.Join(err, x.Close())
}

// TestIndexClosedWithoutRoomLosesNothing has the next process read from the log what was not made a table.
func TestIndexClosedWithoutRoomLosesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "ENTREPOT_TEST_CLOSE="+dir, "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if tables, _ := filepath.Glob(dir + "/*.sst"); len(tables) > 0 {
		t.Errorf("tables %v were written", tables)
	}
	x := openIndex(t, dir)
	if n, err := recall(x); n != known || err != nil || x.Begun() != "" {
		t.Errorf("%d tags are known, %v, begun %q", n, err, x.Begun())
	}
}
