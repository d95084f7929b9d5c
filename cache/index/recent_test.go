package index

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestOutdatedRecordIsNotKept has a write end between a reader's look and its coming back.
func TestOutdatedRecordIsNotKept(t *testing.T) {
	var r recent[tagID, int]
	key, another := tagID{repo, "7"}, tagID{repo, "8"}
	_, looked, ok := r.get(key)
	if ok {
		t.Fatal("it is there")
	}
	r.put(key, 1, 0, looked)
	if v, _, ok := r.get(key); !ok || v != 1 {
		t.Errorf("what was loaded undisturbed: %d, %v", v, ok)
	}
	r.forget(key)
	if v, _, ok := r.get(key); ok {
		t.Errorf("what was overwritten is still %d", v)
	}
	r.put(key, 1, 0, looked)
	if v, _, ok := r.get(key); ok {
		t.Errorf("what was overwritten is %d again", v)
	}
	_, looked, _ = r.get(another)
	r.put(another, 2, 0, looked)
	if v, _, ok := r.get(another); !ok || v != 2 {
		t.Errorf("after a write of something else: %d, %v", v, ok)
	}
}

// TestReadersSeeWhatWasWritten has a record written while it is read, from several sides: a reader that comes after a write
// has returned gets that one or a later one.
func TestReadersSeeWhatWasWritten(t *testing.T) {
	x := openIndex(t, t.TempDir())
	var written [3]atomic.Int64
	const rounds = 3000
	var writers, readers sync.WaitGroup
	var over atomic.Bool
	for i := range written {
		tag := fmt.Sprint(i)
		writers.Go(func() {
			for n := range int64(rounds) {
				if err := x.SetTag(repo, tag, Tag{Manifest: ocispec.Descriptor{Digest: d1, Size: n}}); err != nil {
					t.Error(err)
				}
				written[i].Store(n)
			}
		})
		for range 2 {
			readers.Go(func() {
				for !over.Load() {
					before := written[i].Load()
					if got, ok := x.Tag(repo, tag); ok && got.Manifest.Size < before {
						t.Errorf("read %d after %d was written", got.Manifest.Size, before)
						return
					}
				}
			})
		}
	}
	writers.Wait()
	over.Store(true)
	readers.Wait()
	for i := range written {
		if got, ok := x.Tag(repo, fmt.Sprint(i)); !ok || got.Manifest.Size != rounds-1 {
			t.Errorf("at the end %v, %v", got, ok)
		}
	}
}

// TestIndexIsItsModel writes and reads at random, among more records than are kept decoded.
func TestIndexIsItsModel(t *testing.T) {
	x, rnd := openIndex(t, t.TempDir()), rand.New(rand.NewPCG(1, 2))
	tags, members := make(map[tagID]int64), make(map[memberID]Member)
	long := string(make([]byte, maxRecent/16)) // so that few records fill a generation
	for range 4000 {
		r := Repository{"docker.io", fmt.Sprint("library/", rnd.IntN(4))}
		tag, d := fmt.Sprint(rnd.IntN(5)), digest.FromString(fmt.Sprint(rnd.IntN(5)))
		var err error
		switch n := rnd.Int64N(1000); rnd.IntN(6) {
		case 0:
			err = x.SetTag(r, tag, Tag{Manifest: ocispec.Descriptor{MediaType: long, Digest: d1, Size: n}})
			tags[tagID{r, tag}] = n
		case 1:
			err = x.DeleteTag(r, tag)
			delete(tags, tagID{r, tag})
		case 2:
			err = x.Confirm(r, d, Member{MediaType: long, Size: n})
			members[memberID{r, d}] = Member{long, n, true}
		case 3:
			err = x.Claim(r, []ocispec.Descriptor{{MediaType: long, Digest: d, Size: n}})
			if !members[memberID{r, d}].Confirmed {
				members[memberID{r, d}] = Member{long, n, false}
			}
		case 4:
			got, ok := x.Tag(r, tag)
			if want, known := tags[tagID{r, tag}]; ok != known || got.Manifest.Size != want {
				t.Fatalf("tag %v %v, want %d %v", got.Manifest.Size, ok, want, known)
			}
		case 5:
			got, ok := x.Member(r, d)
			if want, known := members[memberID{r, d}]; ok != known || got != want {
				t.Fatalf("member of %d bytes %v, want %d %v", got.Size, ok, want.Size, known)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecentRecordsAreBounded(t *testing.T) {
	var r recent[tagID, int]
	const size = 2000
	for i := range 10 * maxRecent / size {
		r.put(tagID{repo, fmt.Sprint(i)}, i, size, 0)
		if i > 0 {
			if _, _, ok := r.get(tagID{repo, "0"}); !ok { // asked for all the time
				t.Fatalf("forgotten after %d others", i)
			}
		}
	}
	if n := len(r.young) + len(r.old); n*size > 2*maxRecent || n*size < maxRecent/2 {
		t.Errorf("%d records of %d bytes are kept", n, size)
	}
}

func TestRecentRecordsCostNoAllocation(t *testing.T) {
	x := openIndex(t, t.TempDir())
	warm(t, x)
	if n := testing.AllocsPerRun(100, func() {
		_, tagged := x.Tag(repo, "7")
		_, member := x.Member(repo, d1)
		if !tagged || !member || !x.Shown(repo.Registry, d1) {
			t.Error("it is not there")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// warm writes records and reads them once.
func warm(t testing.TB, x *Index) {
	t.Helper()
	if err := x.SetTag(repo, "7", Tag{Manifest: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: d1, Size: 5}}); err != nil {
		t.Fatal(err)
	}
	if err := x.Confirm(repo, d1, Member{MediaType: ocispec.MediaTypeImageIndex, Size: 5}); err != nil {
		t.Fatal(err)
	}
	x.Tag(repo, "7")
	x.Member(repo, d1)
	x.Shown(repo.Registry, d1)
}
