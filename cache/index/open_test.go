package index

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestTemporaryIndex opens an index where there is no room, learns something, and opens it in earnest when there is.
func TestTemporaryIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	x := openIndex(t, dir)
	old, fresh := Member{"a/b", 1, true}, Member{"a/b", 2, true}
	if err := errors.Join(learn(x, 0, 10), x.Confirm(other, d1, old), x.Confirm(other, d2, old)); err != nil {
		t.Fatal(err)
	}
	x.Close()
	var full atomic.Bool
	full.Store(true)
	x, err := Open(Options{Dir: dir, Roomy: func() bool { return !full.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { x.Close() }()
	if n, _ := recall(x); !x.Temporary() || n != 0 {
		t.Fatalf("temporary %v, %d tags are known", x.Temporary(), n)
	}
	claims := []ocispec.Descriptor{{MediaType: "c/d", Digest: d1, Size: 3}}
	if err := errors.Join(learn(x, 10, 20), x.Claim(other, claims), x.Confirm(other, d2, fresh)); err != nil {
		t.Fatal(err)
	}
	if m, _ := x.Member(other, d1); m != (Member{"c/d", 3, false}) {
		t.Errorf("in memory it is %v", m)
	}
	if n, err := recall(x); n != 10 || err != nil { // and these are among the recent ones now
		t.Errorf("%d tags are known, %v", n, err)
	}
	if err := x.Settle(); !errors.Is(err, ErrNoRoom) || !x.Temporary() {
		t.Errorf("settled without room: %v", err)
	}
	full.Store(false)
	if err := x.Settle(); err != nil || x.Temporary() || x.Begun() != "" {
		t.Fatalf("not settled: %v, begun %q", err, x.Begun())
	}
	for range 2 { // and after a restart
		if n, err := recall(x); n != 20 || err != nil {
			t.Errorf("%d tags are known, %v", n, err)
		}
		if m, _ := x.Member(other, d1); m != old {
			t.Errorf("a claim in memory made it %v", m)
		}
		if m, _ := x.Member(other, d2); m != fresh {
			t.Errorf("it is still %v", m)
		}
		x.Close()
		x = openIndex(t, dir)
	}
}

// TestWhatIsForgottenInMemoryStaysForgotten: upstream says that a tag is gone, and content goes, while there is no room for the index.
// What was forgotten and learnt again stays.
func TestWhatIsForgottenInMemoryStaysForgotten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	x := openIndex(t, dir)
	old, fresh := Tag{Manifest: ocispec.Descriptor{Digest: d1}}, Tag{Manifest: ocispec.Descriptor{Digest: d2}}
	err := errors.Join(x.SetTag(repo, "7", old), x.SetTag(repo, "8", old), x.SetListing(repo, "tags/list", Listing{Body: []byte("[]")}),
		x.List(map[digest.Digest]bool{d1: true, d2: true}))
	if err != nil {
		t.Fatal(err)
	}
	x.Close()
	var full atomic.Bool
	full.Store(true)
	x, err = Open(Options{Dir: dir, Roomy: func() bool { return !full.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { x.Close() }()
	err = errors.Join(x.SetTag(repo, "7", fresh), x.DeleteTag(repo, "7"), x.DeleteTag(repo, "8"), x.SetTag(repo, "8", fresh),
		x.DeleteListing(repo, "tags/list"), x.List(map[digest.Digest]bool{d1: false}))
	if err != nil {
		t.Fatal(err)
	}
	full.Store(false)
	if err := x.Settle(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and after a restart
		if _, ok := x.Tag(repo, "7"); ok {
			t.Error("a tag that upstream does not serve any more is back")
		}
		if got, ok := x.Tag(repo, "8"); !ok || got.Manifest.Digest != d2 {
			t.Error("a tag that upstream serves again is not as it was learnt")
		}
		if _, ok := x.Listing(repo, "tags/list"); ok {
			t.Error("a listing is back")
		}
		if x.Listed(d1) || !x.Listed(d2) {
			t.Errorf("evicted content is listed: %v; what is kept: %v", x.Listed(d1), x.Listed(d2))
		}
		x.Close()
		x = openIndex(t, dir)
	}
}

// TestTemporaryIndexIsBounded fills the memory that it may take.
func TestTemporaryIndexIsBounded(t *testing.T) {
	x, err := Open(Options{Dir: t.TempDir(), Roomy: func() bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for i := 0; err == nil && i < 100; i++ {
		err = filling(x, i)
	}
	if !errors.Is(err, ErrNoRoom) {
		t.Error(err)
	}
}

// TestIndexBegun says how the index was found.
func TestIndexBegun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "index")
	begun := func() string {
		t.Helper()
		x := openIndex(t, dir)
		defer x.Close()
		return x.Begun()
	}
	if err := os.MkdirAll(filepath.Join(dir, "lost+found"), 0o700); err != nil { // the root of a file system has that
		t.Fatal(err)
	}
	for _, want := range []string{"missing", ""} {
		if got := begun(); got != want {
			t.Errorf("begun %q, want %q", got, want)
		}
	}
	for range maxAside + 2 {
		if err := os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("noise"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := begun(); got != "damaged" {
			t.Errorf("begun %q", got)
		}
	}
	if aside, _ := filepath.Glob(dir + "/damaged-*"); len(aside) != maxAside {
		t.Errorf("aside are %v", aside)
	}
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, []byte("a file"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if got := begun(); got != "missing" {
		t.Errorf("begun %q in place of a file", got)
	}
	aside, _ := filepath.Glob(dir + "/damaged-*")
	if b, err := os.ReadFile(aside[0]); string(b) != "a file" || err != nil {
		t.Errorf("aside is %q, %v", b, err)
	}
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	if got := begun(); got != "" {
		t.Errorf("begun %q", got)
	}
}

// TestLockedIndexIsWaitedFor locks another opener out, until the index is closed.
func TestLockedIndexIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	first := openIndex(t, dir)
	second := &Index{opts: Options{Dir: dir}.filled()}
	if err := second.openReal(); !errors.Is(err, errLocked) {
		t.Fatalf("opened twice: %v", err)
	}
	opened := make(chan error)
	go func() {
		x, err := Open(Options{Dir: dir})
		if err == nil {
			err = x.Close()
		}
		opened <- err
	}()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// TestSweep forgets what is not kept once it was there at two sweeps, and nothing that was written since the first.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	x := openIndex(t, dir)
	kept := map[digest.Digest]bool{d1: true}
	sweep := func() {
		t.Helper()
		if err := x.Sweep(t.Context(), time.Now(), func(d digest.Digest) bool { return kept[d] }); err != nil {
			t.Fatal(err)
		}
	}
	tag := func(d digest.Digest) Tag { return Tag{Manifest: ocispec.Descriptor{Digest: d}} }
	write := func(name string, d digest.Digest) {
		t.Helper()
		if err := errors.Join(x.SetTag(repo, name, tag(d)), x.Confirm(repo, d, Member{Size: 1})); err != nil {
			t.Fatal(err)
		}
	}
	known := func(name string, d digest.Digest) bool {
		_, tagged := x.Tag(repo, name)
		_, member := x.Member(repo, d)
		if shown := x.Shown(repo.Registry, d); tagged != member || tagged != shown {
			t.Errorf("%s: tag %v, member %v, shown %v", name, tagged, member, shown)
		}
		return tagged
	}
	d3, d4 := digest.FromString("3"), digest.FromString("4")
	for i := range 2 * batch { // several batches of others
		if err := x.SetTag(other, string(rune('a'+i%26))+digest.FromBytes([]byte{byte(i), byte(i >> 8)}).Encoded(), tag(d2)); err != nil {
			t.Fatal(err)
		}
	}
	write("kept", d1)
	write("gone", d2)
	write("again", d3)
	sweep()
	if !known("kept", d1) || !known("gone", d2) {
		t.Error("forgotten by the first sweep")
	}
	write("again", d3)
	write("new", d4)
	x.Close() // versions outlast a restart
	x = openIndex(t, dir)
	sweep()
	if !known("kept", d1) || known("gone", d2) || !known("again", d3) || !known("new", d4) {
		t.Errorf("kept %v, gone %v, again %v, new %v", known("kept", d1), known("gone", d2), known("again", d3), known("new", d4))
	}
	tags := 0
	if err := x.Tags(func(Repository, string, Tag) bool { tags++; return true }); err != nil || tags != 3 {
		t.Errorf("%d tags are left, %v", tags, err)
	}
	if s := x.Stats(); s.Tags != 3 || s.Members != 3 || s.Shown != 3 {
		t.Errorf("%+v", s)
	}
	sweep()
	if known("again", d3) || known("new", d4) {
		t.Error("the third sweep forgot nothing")
	}
}

// TestSweepKeepsWhatIsWrittenMeanwhile has a record written again when the sweep has looked at it.
func TestSweepKeepsWhatIsWrittenMeanwhile(t *testing.T) {
	x := openIndex(t, t.TempDir())
	write := func() {
		t.Helper()
		if err := x.SetTag(repo, "7", Tag{Manifest: ocispec.Descriptor{Digest: d1}}); err != nil {
			t.Fatal(err)
		}
	}
	write()
	for round := range 2 {
		err := x.Sweep(t.Context(), time.Now(), func(digest.Digest) bool {
			if round == 1 {
				write()
			}
			return false
		})
		if _, ok := x.Tag(repo, "7"); err != nil || !ok {
			t.Fatalf("round %d: %v, %v", round, ok, err)
		}
	}
}

// TestSweepThatEndsEarlyIsNone: a sweep is stopped in the middle. What was written since the one before stays at the next, and the time
// of the one before is known, over a restart too.
func TestSweepThatEndsEarlyIsNone(t *testing.T) {
	dir := t.TempDir()
	x := openIndex(t, dir)
	if at := x.Swept(); !at.IsZero() {
		t.Errorf("a new index was swept at %v", at)
	}
	gone := func(digest.Digest) bool { return false }
	first := time.Unix(1e9, 5)
	if err := errors.Join(x.SetTag(repo, "old", Tag{Manifest: ocispec.Descriptor{Digest: d1}}), x.Sweep(t.Context(), first, gone),
		x.SetTag(repo, "new", Tag{Manifest: ocispec.Descriptor{Digest: d1}})); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	err := x.Sweep(ctx, first.Add(time.Hour), func(digest.Digest) bool { cancel(stopped); return true })
	if !errors.Is(err, stopped) {
		t.Errorf("stopped: %v", err)
	}
	x.Close()
	x = openIndex(t, dir)
	if at := x.Swept(); !at.Equal(first) {
		t.Errorf("last swept at %v", at)
	}
	if err := x.Sweep(t.Context(), first.Add(2*time.Hour), gone); err != nil {
		t.Fatal(err)
	}
	_, old := x.Tag(repo, "old")
	if _, fresh := x.Tag(repo, "new"); old || !fresh {
		t.Errorf("of the two sweeps that were through are left: the old tag %v, the new one %v", old, fresh)
	}
}

// TestMarkOfAnEarlierVersion has no time.
func TestMarkOfAnEarlierVersion(t *testing.T) {
	x := openIndex(t, t.TempDir())
	for _, mark := range [][]byte{binary.AppendUvarint(nil, 1<<40), nil} {
		if err := x.set(sweptKey, mark); err != nil {
			t.Fatal(err)
		}
		if at := x.Swept(); !at.IsZero() {
			t.Errorf("swept at %v", at)
		}
	}
}
