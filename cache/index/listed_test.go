package index

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestListed(t *testing.T) {
	x := openIndex(t, t.TempDir())
	a, b, long := digest.FromString("a"), digest.FromString("b"), digest.SHA512.FromString("c")
	if err := x.List(map[digest.Digest]bool{a: true, b: true, long: true}); err != nil {
		t.Fatal(err)
	}
	if err := x.List(map[digest.Digest]bool{b: false}); err != nil {
		t.Fatal(err)
	}
	if !x.Listed(a) || x.Listed(b) || !x.Listed(long) || x.Listed(digest.FromString("d")) {
		t.Errorf("a %v, b %v, long %v", x.Listed(a), x.Listed(b), x.Listed(long))
	}
	for _, d := range []digest.Digest{a, long} {
		if got := listedDigest(listedKey(d)); got != d {
			t.Errorf("%s became %s", d, got)
		}
	}
	for range 2 { // what is not kept is forgotten by the second sweep after it was listed
		if err := x.Sweep(t.Context(), time.Now(), func(d digest.Digest) bool { return d == long }); err != nil {
			t.Fatal(err)
		}
	}
	if x.Listed(a) || !x.Listed(long) {
		t.Errorf("after the sweeps: a %v, long %v", x.Listed(a), x.Listed(long))
	}
}
