package keeper

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestRoomIsMadeAheadOfNeed fills a cache to its cap, and looks at what the keeper leaves of that.
func TestRoomIsMadeAheadOfNeed(t *testing.T) {
	const limit = 64 << 20
	s := openShop(t, Options{MaxSize: limit})
	for i := range 70 {
		s.put(fmt.Sprint(i), 1<<20)
		if used := s.Stats().Bytes; used > limit {
			t.Fatalf("%d bytes are used", used)
		}
	}
	if s.disk.Excess() == 0 {
		t.Fatal("nothing is above the lower mark")
	}
	s.relieve(t.Context())
	if s.disk.Excess() > 0 || s.Stats().Content < 50 {
		t.Errorf("%d bytes are above the lower mark, %d are kept", s.disk.Excess(), s.Stats().Content)
	}
}

// TestParkedContentIsSparedAsLongAsItIsLittle parks more and more content beside what is kept, and needs room again and again.
func TestParkedContentIsSparedAsLongAsItIsLittle(t *testing.T) {
	const limit = 64 << 20
	s := openShop(t, Options{MaxSize: limit})
	park := func(name string) {
		t.Helper()
		p, err := s.Create(digest.FromString(name), 2<<20, 2<<20)
		must(t, err)
		_, err = p.WriteAt(make([]byte, 1<<20), 0)
		must(t, err)
		must(t, p.Park([]byte("{}")))
		must(t, p.Close())
	}
	for i := range 40 {
		s.put(fmt.Sprint("kept ", i), 1<<20)
	}
	park("first")
	for i := range 40 {
		s.put(fmt.Sprint("more ", i), 1<<20)
	}
	if st := s.Stats(); st.Parked < 1<<20 || st.Content < 40 {
		t.Errorf("%d bytes are parked, %d are kept", st.Parked, st.Content)
	}
	for i := range 60 {
		park(fmt.Sprint("parked ", i))
	}
	s.put("last", 1<<20)
	s.relieve(t.Context())
	if st := s.Stats(); st.Parked > limit/parkedShare+4<<20 || st.Content < 30 {
		t.Errorf("%d bytes are parked, %d are kept", st.Parked, st.Content)
	}
}

// TestWhatOnlyAnEvictedManifestNeededGoesNext has two images that share a layer, of which one has not been used for long.
func TestWhatOnlyAnEvictedManifestNeededGoesNext(t *testing.T) {
	names := map[string][]digest.Digest{}
	s := openShop(t, Options{Names: func(content []byte) []digest.Digest { return names[string(content)] }})
	const large = 1 << 20 // what is small stays longer
	unrelated, own, shared := s.put("unrelated", large), s.put("own", large), s.put("shared", large)
	manifest := contentOf("manifest", 100)
	names[string(manifest)] = []digest.Digest{own, shared}
	d := digest.FromBytes(manifest)
	must(t, s.Put(d, manifest))
	s.recency.turn()
	if _, ok := s.read(shared); !ok { // by the other image
		t.Fatal("not kept")
	}
	s.recency.mu.Lock()
	s.recency.policy.Demote(d, 1) // its turn has come
	s.recency.mu.Unlock()
	for range 2 {
		if _, ok := s.evict(); !ok {
			t.Fatal("nothing to evict")
		}
	}
	if s.Has(d) || s.Has(own) || !s.Has(shared) || !s.Has(unrelated) {
		t.Errorf("kept: manifest %v, its own %v, shared %v, unrelated %v", s.Has(d), s.Has(own), s.Has(shared), s.Has(unrelated))
	}
}
