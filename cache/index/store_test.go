package index

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// filling is a way to fill a log in few writes.
func filling(x *Index, i int) error {
	return x.SetListing(repo, fmt.Sprint("tags/list?", i%8), Listing{Body: bytes.Repeat([]byte{1}, maxListing/2)})
}

// TestLogIsAllocatedAheadOfWhatIsWritten writes all kinds of records, from several sides, until several tables were written, and
// looks every now and then how far the log is written: only where there are blocks, which is no further than was claimed.
func TestLogIsAllocatedAheadOfWhatIsWritten(t *testing.T) {
	dir := t.TempDir()
	var claimed atomic.Int64
	x, err := Open(Options{Dir: dir, Claim: func(n int64) bool { claimed.Add(n); return true }})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	s, first := x.live, x.live.id
	look := func() {
		s.alone.Lock() // nobody writes
		defer s.alone.Unlock()
		log, err := os.ReadFile(s.logName(s.id))
		if err != nil {
			t.Fatal(err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(s.logName(s.id), &st); err != nil {
			t.Fatal(err)
		}
		end := int64(len(bytes.TrimRight(log, "\x00")))
		if end > s.spent.log || s.spent.log > s.allocated && s.allocated > 0 ||
			st.Blocks*512 < s.allocated || claimed.Load() < s.allocated {
			t.Fatalf("written up to %d, taken down %d, allocated %d of %d claimed, in %d bytes of blocks",
				end, s.spent.log, s.allocated, claimed.Load(), st.Blocks*512)
		}
		if _, err := os.Stat(s.logName(s.id + 1)); err == nil {
			t.Fatalf("log %d is not followed", s.id+1)
		}
	}
	for round := 0; s.id < first+3; round++ {
		var writers sync.WaitGroup
		for i := range 4 {
			rnd := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			writers.Go(func() {
				for range 200 {
					tag, rec := knownTag(rnd.IntN(known))
					var named []ocispec.Descriptor
					for range rnd.IntN(100) {
						named = append(named, ocispec.Descriptor{MediaType: "a/b", Digest: digest.FromString(fmt.Sprint(rnd.IntN(1 << 20)))})
					}
					err := errors.Join(x.SetTag(repo, tag, rec), x.DeleteTag(repo, tag), x.Claim(other, named),
						x.Confirm(repo, rec.Manifest.Digest, Member{Size: rnd.Int64()}))
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		writers.Wait()
		look()
		if err := filling(x, round); err != nil {
			t.Fatal(err)
		}
		look()
	}
}

// TestTablesAreWrittenOnlyWhereThereIsRoom fills the log where there is none: records are refused, and those that were written
// stay, over a restart too.
func TestTablesAreWrittenOnlyWhereThereIsRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	var full atomic.Bool
	x, err := Open(Options{Dir: dir, Roomy: func() bool { return !full.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := learn(x, 0, known); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	refused := false
	for i := 0; i < 100 && !refused; i++ {
		err := filling(x, i)
		if refused = errors.Is(err, ErrNoRoom); err != nil && !refused {
			t.Fatal(err)
		}
	}
	tables, _ := filepath.Glob(dir + "/*.sst")
	logs, _ := filepath.Glob(dir + "/*.mem")
	if !refused || len(tables) > 0 || len(logs) != 1 {
		t.Errorf("refused %v; tables %v, logs %v", refused, tables, logs)
	}
	if n, err := recall(x); n != known || err != nil {
		t.Errorf("%d tags are known, %v", n, err)
	}
	full.Store(false)
	for i := range 8 {
		if err := filling(x, i); err != nil {
			t.Errorf("with room again: %v", err)
		}
	}
	if logs, _ = filepath.Glob(dir + "/*.mem"); x.live.id == 1 {
		t.Errorf("no other log was begun: %v", logs)
	}
	if n, err := recall(x); n != known || err != nil {
		t.Errorf("%d tags are known, %v", n, err)
	}
}

// TestNothingIsWrittenWithoutAClaim has a full cap refuse the log's growth and the table's, and then give leave.
func TestNothingIsWrittenWithoutAClaim(t *testing.T) {
	var left atomic.Int64
	x, err := Open(Options{Dir: t.TempDir(), Claim: func(n int64) bool { return left.Add(-n) >= 0 }})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for _, room := range []int64{step, 5 * step, memTable} {
		left.Store(room)
		var err error
		for i := 0; i < 1000 && err == nil; i++ {
			err = filling(x, i)
		}
		if !errors.Is(err, ErrNoRoom) || x.live.allocated > x.live.spent.log+2*step+maxListing {
			t.Errorf("%d bytes to claim: %v, allocated %d", room, err, x.live.allocated)
		}
	}
	left.Store(100 << 20)
	for i := range 50 {
		if err := filling(x, i); err != nil {
			t.Fatal(err)
		}
	}
}

// TestManyTablesAreCompacted reads what is in merged tables, and finds fewer of them.
func TestManyTablesAreCompacted(t *testing.T) {
	dir := t.TempDir()
	var occupied int64
	x, err := Open(Options{Dir: dir, Occupy: func(n int64) { occupied = n }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { x.Close() }()
	for i := range manyTables + 1 { // each start makes a table of what was in the log
		if err := learn(x, i*10, known); err != nil {
			t.Fatal(err)
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
		if x, err = Open(Options{Dir: dir, Occupy: func(n int64) { occupied = n }}); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := filepath.Glob(dir + "/*.sst")
	if err := x.Settle(); err != nil {
		t.Fatal(err)
	}
	after, _ := filepath.Glob(dir + "/*.sst")
	if n, err := recall(x); n != known || err != nil || len(after) >= len(before) {
		t.Errorf("%d tags are known, %v, of %d tables there are %d", n, err, len(before), len(after))
	}
	if x.Stats().Bytes != occupied || occupied < 100_000 || occupied > 20<<20 {
		t.Errorf("it occupies %d, %d", occupied, x.Stats().Bytes)
	}
}
