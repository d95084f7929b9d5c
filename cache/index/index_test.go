package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func openIndex(t *testing.T, dir string) *Index {
	t.Helper()
	x, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

var (
	repo   = Repository{"docker.io", "library/redis"}
	other  = Repository{"docker.io", "library/redis2"}
	d1, d2 = digest.FromString("1"), digest.FromString("2")
)

func TestRecordsSurviveReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	x := openIndex(t, dir)
	tag := Tag{
		Manifest: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: d1, Size: 1234},
		Checked:  time.Unix(1_700_000_000, 5), Changed: time.Unix(1_600_000_000, 0),
	}
	list := Listing{ContentType: "application/json", Link: "</v2/x>; rel=next", Body: []byte("{}"), Checked: time.Unix(1_700_000_000, 0)}
	if err := x.SetTag(repo, "7", tag); err != nil {
		t.Fatal(err)
	}
	if err := x.SetListing(repo, "tags/list?n=1", list); err != nil {
		t.Fatal(err)
	}
	if err := x.Confirm(repo, d1, Member{MediaType: "a/b", Size: -1}); err != nil {
		t.Fatal(err)
	}
	x.Close()

	x = openIndex(t, dir)
	gotTag, ok := x.Tag(repo, "7")
	if diff := cmp.Diff(tag, gotTag); !ok || diff != "" {
		t.Errorf("tag: %v %s", ok, diff)
	}
	gotList, ok := x.Listing(repo, "tags/list?n=1")
	if diff := cmp.Diff(list, gotList); !ok || diff != "" {
		t.Errorf("listing: %v %s", ok, diff)
	}
	if m, ok := x.Member(repo, d1); !ok || m != (Member{"a/b", -1, true}) {
		t.Errorf("member: %v %v", m, ok)
	}
	if _, ok := x.Tag(other, "7"); ok {
		t.Error("another repository has the tag")
	}
	if err := x.DeleteTag(repo, "7"); err != nil {
		t.Fatal(err)
	}
	if _, ok := x.Tag(repo, "7"); ok {
		t.Error("deleted tag is there")
	}
}

func TestClaimNeverWeakensWhatUpstreamShowed(t *testing.T) {
	x := openIndex(t, t.TempDir())
	if err := x.Confirm(repo, d1, Member{MediaType: "a/b", Size: 1}); err != nil {
		t.Fatal(err)
	}
	claims := []ocispec.Descriptor{{MediaType: "c/d", Digest: d1, Size: 2}, {MediaType: "c/d", Digest: d2, Size: 2}}
	if err := x.Claim(repo, claims); err != nil {
		t.Fatal(err)
	}
	if m, _ := x.Member(repo, d1); m != (Member{"a/b", 1, true}) {
		t.Errorf("confirmed member became %v", m)
	}
	if m, _ := x.Member(repo, d2); m != (Member{"c/d", 2, false}) {
		t.Errorf("claimed member is %v", m)
	}
	if !x.Shown("docker.io", d1) || x.Shown("docker.io", d2) || x.Shown("ghcr.io", d1) {
		t.Error("shown is what upstream showed, in that registry")
	}
}

func TestLargeListingIsNotKept(t *testing.T) {
	x := openIndex(t, t.TempDir())
	if err := x.SetListing(repo, "tags/list?", Listing{Body: make([]byte, 2<<20)}); err != nil {
		t.Fatal(err)
	}
	if _, ok := x.Listing(repo, "tags/list?"); ok {
		t.Error("it is there")
	}
}

func TestDamagedIndexIsMovedAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	openIndex(t, dir).Close()
	if err := os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("noise, and nothing else than noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.ErrorLevel)
	x, err := Open(Options{Dir: dir, Log: zap.New(core)})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if aside, _ := filepath.Glob(dir + "/damaged-*"); len(aside) != 1 {
		t.Errorf("moved aside: %v", aside)
	}
	if logs.FilterMessageSnippet("damaged").Len() != 1 {
		t.Errorf("log: %v", logs.All())
	}
}

func TestIndexThatEndedItsLastOpenersIsMovedAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	x := openIndex(t, dir)
	if err := x.SetTag(repo, "7", Tag{Manifest: ocispec.Descriptor{Digest: d1}}); err != nil {
		t.Fatal(err)
	}
	x.Close()
	if err := os.WriteFile(dir+"/opening", []byte(".."), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is the new one, and stays
		x = openIndex(t, dir)
		if _, ok := x.Tag(repo, "7"); ok {
			t.Error("the index was opened all the same")
		}
		x.Close()
	}
	if aside, _ := filepath.Glob(dir + "/damaged-*"); len(aside) != 1 {
		t.Errorf("moved aside: %v", aside)
	}
}

func TestListingsAreBounded(t *testing.T) {
	dir := t.TempDir()
	x := openIndex(t, dir)
	body := make([]byte, maxListing/2)
	name := func(i int) string { return fmt.Sprintf("tags/list?n=%d", i) }
	const n = 2*maxListings/(maxListing/2) + 10
	for i := range n {
		if err := x.SetListing(repo, name(i), Listing{Body: body}); err != nil {
			t.Fatal(err)
		}
		if i == n/2 { // a restart does not forget how many there are
			x.Close()
			x = openIndex(t, dir)
		}
	}
	kept := 0
	for i := range n {
		if _, ok := x.Listing(repo, name(i)); ok {
			kept++
		}
	}
	if _, ok := x.Listing(repo, name(n-1)); !ok || kept*len(body) > maxListings {
		t.Errorf("%d listings of %d bytes are kept", kept, len(body))
	}
}

func TestNothingIsWrittenWhereThereIsNoRoom(t *testing.T) {
	x, err := Open(Options{Dir: t.TempDir(), Claim: func(int64) bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for name, err := range map[string]error{
		"tag":     x.SetTag(repo, "7", Tag{}),
		"confirm": x.Confirm(repo, d1, Member{}),
		"claim":   x.Claim(repo, []ocispec.Descriptor{{Digest: d1}}),
		"listing": x.SetListing(repo, "tags/list?", Listing{}),
	} {
		if !errors.Is(err, ErrNoRoom) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(Tag{Manifest: ocispec.Descriptor{MediaType: "a/b", Digest: d1, Size: 5}, Checked: time.Unix(1, 2)}.encode())
	f.Add(Member{MediaType: "a/b", Size: 7, Confirmed: true}.encode())
	f.Add(Listing{ContentType: "x", Link: "y", Body: []byte("z")}.encode())
	f.Add([]byte{version, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var tag Tag
		if tag.decode(b) == nil {
			var again Tag
			if err := again.decode(tag.encode()); err != nil || !cmp.Equal(tag, again) {
				t.Errorf("%+v became %+v, %v", tag, again, err)
			}
		}
		var m, m2 Member
		if m.decode(b) == nil && (m2.decode(m.encode()) != nil || m != m2) {
			t.Errorf("%+v became %+v", m, m2)
		}
		var l, l2 Listing
		if l.decode(b) == nil && (l2.decode(l.encode()) != nil || !cmp.Equal(l, l2)) {
			t.Errorf("%+v became %+v", l, l2)
		}
	})
}
